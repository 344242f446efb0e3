"""A consumer of a registry: models that are registered and signed for, and what `load_verified` does with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from quantguard.attest.admission import Rules
from quantguard.attest.load import EvidenceGatekeeper, load_verified
from quantguard.checkpoint.digest import model_digest
from quantguard.core.attestation import Binding
from quantguard.core.errors import NotAdmittedError
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import ExitCode
from quantguard.evidence.trusted import read_trusted
from quantguard.policy.load import LoadedPolicy
from quantguard.registry.load_verified import Loaded
from quantguard.registry.register import register_directory
from tests.attest.made import NOW, signed_tags
from tests.registry.world import FILES, fresh_name, write_files


@dataclass(frozen=True)
class World:
    """A registry, a policy and a key; models are registered and signed for as the gate does it."""

    uri: str
    client: MlflowClient
    policy: LoadedPolicy
    keys: Path
    folder: Path

    def register(self, files: Mapping[str, bytes] = FILES, *, name: str = "", sign: bool = True) -> VersionIdentity:
        source = write_files(self.folder / fresh_name("files"), dict(files))
        identity = register_directory(self.uri, name or fresh_name("served"), source)
        if sign:
            self.sign(identity, model_digest(source))
        return identity

    def sign(self, identity: VersionIdentity, digest: str, **given: Any) -> None:
        binding = Binding(identity, digest, given.pop("environment", "production"))
        for key, value in signed_tags(self.policy, binding=binding, **given).items():
            self.client.set_model_version_tag(identity.name, identity.version, key, value)

    def load(self, ref: str, **given: Any) -> Loaded:
        settings = {
            "keys": self.keys,
            "policy": self.policy.path,
            "tracking_uri": self.uri,
            "environment": "production",
            "now": NOW,
        }
        return load_verified(ref, self.folder / "model", **{**settings, **given})

    def refusal(self, ref: str, **given: Any) -> str:
        """The rule by which it is refused; nothing is left of the model."""
        with pytest.raises(NotAdmittedError) as refused:
            self.load(ref, **given)
        assert refused.value.exit_code is ExitCode.BLOCKED
        assert refused.value.remedy
        assert self.left() == []
        return refused.value.rule

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("model*"))


def gatekeeper(world: World) -> EvidenceGatekeeper:
    return EvidenceGatekeeper(Rules(world.policy, read_trusted(world.keys), "production"), NOW)
