"""A registry that enforces, and versions of models with real signed evidence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from quantguard.core.attestation import Binding
from quantguard.core.model import VersionIdentity
from quantguard.evidence.keys import Signer
from quantguard.policy.load import LoadedPolicy
from tests.attest.made import DIGEST, signed_tags, write_made_policy

_numbers = itertools.count(1)
ENVIRONMENT: Final = "production"
TODAY: Final = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server enforces by, on the disk."""

    folder: Path
    policy: LoadedPolicy
    gate: Signer  # trusted
    retired: Signer  # trusted until 2020
    staging: Signer  # trusted for the environment `staging` only

    def uri(self, database: str) -> str:
        """The address of a store that keeps its data in `database`."""
        keys = self.folder / "keys" / "keys.yaml"
        return (
            f"quantguard://?db={quote(database, safe='')}&policy={self.policy.path}&keys={keys}&environment=production"
        )


def made_settings(folder: Path) -> Settings:
    policy = write_made_policy(folder / "policy", registry={"alias": "champion", "protected": ["shadow"]})
    signers = {name: Signer.generate() for name in ("gate", "retired", "staging")}
    (folder / "keys").mkdir()
    for name, signer in signers.items():
        (folder / "keys" / f"{name}.pub.pem").write_bytes(signer.public.pem())
    (folder / "keys" / "keys.yaml").write_text(
        "schema: quantguard.keys/1\nkeys:\n"
        "- {name: gate, public: gate.pub.pem}\n"
        "- {name: retired, public: retired.pub.pem, not_after: 2020-12-31}\n"
        "- {name: staging, public: staging.pub.pem, environments: [staging]}\n",
        encoding="utf-8",
    )
    return Settings(folder, policy, **signers)


@dataclass(frozen=True, slots=True)
class World:
    """One enforcing server, as a client meets it."""

    uri: str
    client: MlflowClient
    settings: Settings

    def version(self, name: str = "") -> VersionIdentity:
        """A new version, without evidence; of a new model unless it is named."""
        if not name:
            name = f"enforced-{next(_numbers)}"
            self.client.create_registered_model(name)
        made = self.client.create_model_version(name, f"s3://store/{next(_numbers)}", await_creation_for=0)
        return VersionIdentity(name, str(made.version), str(made.source), int(made.creation_timestamp))

    def evidence(self, identity: VersionIdentity, environment: str = ENVIRONMENT, **given: Any) -> dict[str, str]:
        """Tags with signed evidence for `identity`, of now and by the gate's key unless `given` says otherwise."""
        policy = given.pop("policy", self.settings.policy)
        given = {"at": TODAY, "signer": self.settings.gate, **given}
        return signed_tags(policy, binding=Binding(identity, DIGEST, environment), **given)

    def attach(self, identity: VersionIdentity, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_model_version_tag(identity.name, identity.version, key, value)

    def approved(self, name: str = "") -> VersionIdentity:
        """A version with evidence that admits it."""
        identity = self.version(name)
        self.attach(identity, self.evidence(identity))
        return identity

    def ask(self, identity: VersionIdentity, alias: str = "champion") -> None:
        self.client.set_registered_model_alias(identity.name, alias, identity.version)

    def holder(self, name: str, alias: str = "champion") -> str | None:
        found = self.client.get_registered_model(name).aliases.get(alias)
        return None if found is None else str(found)

    def refuses(self, identity: VersionIdentity, rule: str, alias: str = "champion") -> str:
        """Ask for the alias, be refused by `rule`, and find the alias where it was; what the client was told."""
        before = self.holder(identity.name, alias)
        with pytest.raises(MlflowException) as caught:
            self.ask(identity, alias)
        told = str(caught.value)
        assert caught.value.error_code == "PERMISSION_DENIED", told
        assert f"({rule})" in told, told
        assert self.holder(identity.name, alias) == before
        return told
