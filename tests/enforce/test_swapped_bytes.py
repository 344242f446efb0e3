"""Bytes that change after they were signed: artifacts stay writable, and the registry reads none of them.

The alias is the registry's business, the bytes are the consumer's: `load_verified` compares them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.attest.load import load_verified
from quantguard.checkpoint.digest import model_digest
from quantguard.core.attestation import Binding
from quantguard.core.errors import NotAdmittedError
from quantguard.core.model import VersionIdentity
from quantguard.registry.register import register_directory
from tests.attest.made import signed_tags
from tests.enforce.world import ENVIRONMENT, TODAY, World
from tests.registry.world import FILES, write_files


@pytest.fixture
def promoted(world: World, tmp_path: Path) -> VersionIdentity:
    """A version of a real directory that holds the alias by evidence of its bytes."""
    directory = write_files(tmp_path / "files", FILES)
    identity = register_directory(world.uri, f"swapped-{tmp_path.name}", directory)
    binding = Binding(identity, model_digest(directory), ENVIRONMENT)
    gate = world.settings.gate
    world.attach(identity, signed_tags(world.settings.policy, binding=binding, at=TODAY, signer=gate))
    world.ask(identity)
    return identity


def load(world: World, identity: VersionIdentity, to: Path) -> None:
    settings = world.settings
    keys = settings.folder / "keys" / "keys.yaml"
    load_verified(
        f"models:/{identity.name}@champion",
        to,
        keys=keys,
        policy=settings.policy.path,
        tracking_uri=world.uri,
        environment=ENVIRONMENT,
    )


def test_swapped_bytes_keep_the_alias_and_are_not_loaded(
    world: World, promoted: VersionIdentity, tmp_path: Path
) -> None:
    load(world, promoted, tmp_path / "before")
    evil = write_files(tmp_path / "evil", {"model.safetensors": bytes(reversed(FILES["model.safetensors"]))})
    # As anybody may who can log a model: the server overwrites without a word.
    client: MlflowClient = world.client
    client.log_model_artifacts(promoted.source.removeprefix("models:/"), str(evil))
    assert world.holder(promoted.name) == promoted.version
    with pytest.raises(NotAdmittedError) as refused:
        load(world, promoted, tmp_path / "after")
    assert refused.value.rule == "evidence.other-bytes"
    assert not (tmp_path / "after").exists()


def test_evidence_of_other_bytes_gets_the_alias_and_nothing_to_serve(world: World, tmp_path: Path) -> None:
    """A signature names a digest; whether these are those bytes only their reader can tell."""
    directory = write_files(tmp_path / "files", FILES)
    identity = register_directory(world.uri, f"swapped-{tmp_path.name}", directory)
    world.attach(identity, world.evidence(identity))
    world.ask(identity)
    with pytest.raises(NotAdmittedError) as refused:
        load(world, identity, tmp_path / "model")
    assert refused.value.rule == "evidence.other-bytes"
