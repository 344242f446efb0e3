from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from quantguard.core.errors import NothingToGateError, RegistryError, VersionChangedError
from quantguard.core.model import RegisteredVersion, VersionIdentity
from quantguard.core.progress import silent
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.store import fetch_files, list_files
from tests.registry.world import FILES, Steps, fresh_name, read_files, write_files


def register(client: MlflowClient, source: str, run_id: str | None = None) -> RegisteredVersion:
    name = fresh_name()
    client.create_registered_model(name)
    client.create_model_version(name, source, run_id, await_creation_for=0)
    return RegisteredVersion(name, "1")


def run_with(client: MlflowClient, directory: Path, artifact_path: str) -> str:
    run_id = str(client.create_run("0").info.run_id)
    client.log_artifacts(run_id, str(directory), artifact_path)
    return run_id


def test_a_download_is_the_directory_that_was_registered(
    registry: MlflowRegistry, version: VersionIdentity, tmp_path: Path
) -> None:
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "left by a kill").touch()
    for _ in range(2):
        registry.download(version, tmp_path / "model")
        assert read_files(tmp_path / "model") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_run_of_raw_artifacts_is_found(registry: MlflowRegistry, client: MlflowClient, tmp_path: Path) -> None:
    run_id = run_with(client, write_files(tmp_path / "in", FILES), "some/weights")
    for source in (f"runs:/{run_id}/some/weights", f"mlflow-artifacts:/0/{run_id}/artifacts/some/weights"):
        identity = registry.identify(register(client, source, run_id))
        assert identity.run_id == run_id
        registry.download(identity, tmp_path / "out")
        assert read_files(tmp_path / "out") == FILES


def test_a_copied_version_is_found(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    copy = client.copy_model_version(str(version), fresh_name())
    registry.download(registry.identify(RegisteredVersion(copy.name, copy.version)), tmp_path / "out")
    assert read_files(tmp_path / "out") == FILES


def test_a_run_path_that_means_two_places_is_refused(
    registry: MlflowRegistry, client: MlflowClient, tmp_path: Path
) -> None:
    run_id = run_with(client, write_files(tmp_path / "in", FILES), "weights")
    identity = registry.identify(register(client, f"runs:/{run_id}/weights", run_id))
    model = client.create_logged_model("0", name="weights", source_run_id=run_id)
    client.log_model_artifacts(model.model_id, str(write_files(tmp_path / "other", {"config.json": b"other"})))
    client.finalize_logged_model(model.model_id, "READY")
    with pytest.raises(RegistryError, match="at once"):
        registry.download(identity, tmp_path / "out")


@pytest.mark.parametrize("source", ["hf://org/model", "s3://bucket/key", "dbfs:/models/x", "gs://bucket/key"])
def test_a_source_outside_the_servers_own_store_is_refused_by_name(
    source: str, registry: MlflowRegistry, client: MlflowClient, tmp_path: Path
) -> None:
    identity = registry.identify(register(client, source))
    with pytest.raises(RegistryError, match=f"{source} is outside the registry's own artifact store") as caught:
        registry.download(identity, tmp_path / "out")
    assert "log the files to this server" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_local_location_chosen_by_a_registry_user_is_read_only_where_the_operator_trusts_it(
    mlflow_server: EmbeddedServer, client: MlflowClient, tmp_path: Path
) -> None:
    secret = write_files(tmp_path / "home", {"secret": b"s"}) / "secret"
    experiment = client.create_experiment(fresh_name(), artifact_location=str(tmp_path / "store"))
    run_id = str(client.create_run(experiment).info.run_id)
    client.log_artifacts(run_id, str(write_files(tmp_path / "in", FILES)))
    root = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    (root / "link").symlink_to(secret)
    ref = register(client, str(root), run_id)
    strict = MlflowRegistry(mlflow_server.uri)
    with pytest.raises(RegistryError, match="outside the registry's own artifact store"):
        strict.download(strict.identify(ref), tmp_path / "out")
    lenient = MlflowRegistry(mlflow_server.uri, trusted_roots=(str(tmp_path / "store"),))
    lenient.download(lenient.identify(ref), tmp_path / "out")
    assert (tmp_path / "out" / "link").is_symlink()
    (tmp_path / "out" / "link").unlink()
    assert read_files(tmp_path / "out") == FILES


def test_a_version_without_files_is_nothing_to_gate(
    registry: MlflowRegistry, client: MlflowClient, tmp_path: Path
) -> None:
    run_id = str(client.create_run("0").info.run_id)
    identity = registry.identify(register(client, f"runs:/{run_id}/nothing", run_id))
    with pytest.raises(NothingToGateError, match="holds no files"):
        registry.download(identity, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_version_is_not_downloaded(
    registry: MlflowRegistry, version: VersionIdentity, tmp_path: Path
) -> None:
    with pytest.raises(VersionChangedError):
        registry.download(replace(version, created=version.created - 1), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk_is_said_before_the_first_byte(
    registry: MlflowRegistry, version: VersionIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 100))
    steps = Steps()
    with pytest.raises(RegistryError, match="needs 1028 bytes and 100 are free"):
        registry.download(version, tmp_path / "out", progress=steps)
    assert steps.counts == []
    assert list(tmp_path.iterdir()) == []


class LyingStore(ArtifactRepository):
    """Lists one file under a name, with a size, and sends three bytes."""

    def __init__(self, path: str, size: int) -> None:
        super().__init__("mlflow-artifacts:/lying")
        self.path, self.size = path, size

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        return [FileInfo(self.path, False, self.size)]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        Path(local_path).write_bytes(b"abc")

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        raise NotImplementedError

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../up", "a//b", "..\\up", "/".join("a" * 40)])
def test_a_listing_that_leaves_its_root_is_refused(path: str) -> None:
    with pytest.raises(RegistryError, match="not one of its own"):
        list_files(LyingStore(path, 3), "models:/x/1")


def test_a_file_that_comes_shorter_than_listed_is_refused(tmp_path: Path) -> None:
    store = LyingStore("weights", 4)
    with pytest.raises(RegistryError, match="weights came with 3 of 4 bytes"):
        fetch_files(store, list_files(store, "models:/x/1"), tmp_path, "models:/x/1", silent)
