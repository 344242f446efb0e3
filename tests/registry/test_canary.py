"""Canaries in a registry that others use too, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.canary.catalogue import CanaryKind, canary_directory, recorded_digest
from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import RegistryUnreachableError, UsageError
from quantguard.core.model import VersionIdentity
from quantguard.registry.canary import CANARY, DIGEST, Canary, register_canaries
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.state import version_states
from tests.registry.world import FILES, fresh_name, snapshot, write_files


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    directory = write_files(tmp_path / "canary", FILES)
    return Canary(fresh_name("canary"), "clean", directory, model_digest(directory))


def test_what_is_registered_says_what_it_is_and_is_fetched_with_the_recorded_digest(
    mlflow_server: EmbeddedServer, registry: MlflowRegistry, client: MlflowClient, tmp_path: Path
) -> None:
    kind = CanaryKind.NF4_ATTACKED
    attacked = Canary(fresh_name("canary"), kind.value, canary_directory(kind), recorded_digest(kind))
    (one,) = register_canaries(mlflow_server.uri, [attacked])
    assert (one.identity.name, one.identity.version, one.added) == (attacked.name, "1", True)
    registry.download(one.identity, tmp_path / "model")
    assert model_digest(tmp_path / "model") == recorded_digest(kind)
    model, version = client.get_registered_model(attacked.name), client.get_model_version(attacked.name, "1")
    assert model.tags == {CANARY: "nf4-attacked"}
    assert version.tags == {CANARY: "nf4-attacked", DIGEST: recorded_digest(kind)}
    assert model.aliases == {}
    for description in (model.description, version.description):
        assert "harmless test model" in str(description)


def test_the_same_bytes_are_registered_once_unless_asked_again(mlflow_server: EmbeddedServer, canary: Canary) -> None:
    (first,) = register_canaries(mlflow_server.uri, [canary])
    (second,) = register_canaries(mlflow_server.uri, [canary])
    assert (second.identity, second.added) == (first.identity, False)
    (again,) = register_canaries(mlflow_server.uri, [canary], again=True)
    assert (again.identity.version, again.added) == ("2", True)
    (newest,) = register_canaries(mlflow_server.uri, [canary])
    assert (newest.identity, newest.added) == (again.identity, False)


def test_other_bytes_are_a_new_version(mlflow_server: EmbeddedServer, canary: Canary, tmp_path: Path) -> None:
    register_canaries(mlflow_server.uri, [canary])
    directory = write_files(tmp_path / "next", FILES | {"README.md": b"of the next release"})
    later = Canary(canary.name, canary.kind, directory, model_digest(directory))
    (one,) = register_canaries(mlflow_server.uri, [later])
    assert (one.identity.version, one.added) == ("2", True)
    states = version_states(mlflow_server.uri, canary.name)
    assert [state.tag(DIGEST) for state in states] == [canary.digest, later.digest]


def test_what_a_killed_run_left_is_completed(
    mlflow_server: EmbeddedServer, client: MlflowClient, canary: Canary
) -> None:
    client.create_registered_model(canary.name, {CANARY: canary.kind})
    (one,) = register_canaries(mlflow_server.uri, [canary])
    assert (one.identity.version, one.added) == ("1", True)


def test_a_model_of_the_same_name_stays_as_it_is_and_nothing_is_registered(
    mlflow_server: EmbeddedServer, client: MlflowClient, version: VersionIdentity, canary: Canary
) -> None:
    client.set_registered_model_alias(version.name, "champion", version.version)
    before = snapshot(client, version.name, ()), client.get_registered_model(version.name).last_updated_timestamp
    foreign = Canary(version.name, canary.kind, canary.directory, canary.digest)
    with pytest.raises(UsageError, match="left as it is; give another --name-prefix"):
        register_canaries(mlflow_server.uri, [canary, foreign], again=True)
    assert before == (
        snapshot(client, version.name, ()),
        client.get_registered_model(version.name).last_updated_timestamp,
    )
    assert client.search_registered_models(f"name = '{canary.name}'") == []


def test_no_server_is_told_at_once_and_without_the_password(canary: Canary) -> None:
    with pytest.raises(RegistryUnreachableError) as refused:
        register_canaries("http://ann:p@ss-word@127.0.0.1:9", [canary])
    assert "127.0.0.1:9" in str(refused.value)
    assert "ss-word" not in str(refused.value)
