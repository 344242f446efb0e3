"""What every registry keeps, over a real MLflow server and over a directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantguard.core.errors import QuantGuardError, UnsafeCheckpointError
from quantguard.core.model import LocalDirectory, ModelRef, RegisteredVersion
from quantguard.core.verdict import Verdict
from quantguard.registry.directory import DirectoryRegistry
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.interface import Registry
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.register import register_directory
from tests.registry.world import FILES, Steps, fresh_name, publication, read_files, write_files


@dataclass(frozen=True, slots=True)
class Subject:
    registry: Registry
    ref: ModelRef
    absent: ModelRef
    foreign: ModelRef


def over_mlflow(server: EmbeddedServer, directory: Path) -> Subject:
    identity = register_directory(server.uri, fresh_name(), directory, tags={"by": "test"})
    ref = RegisteredVersion(identity.name, identity.version)
    return Subject(MlflowRegistry(server.uri), ref, RegisteredVersion(ref.name, "9"), LocalDirectory(directory))


def over_a_directory(server: EmbeddedServer, directory: Path) -> Subject:
    absent = LocalDirectory(directory / "nowhere")
    return Subject(DirectoryRegistry(), LocalDirectory(directory), absent, RegisteredVersion("x", "1"))


@pytest.fixture(params=[over_mlflow, over_a_directory])
def subject(request: pytest.FixtureRequest, mlflow_server: EmbeddedServer, tmp_path: Path) -> Subject:
    make: Callable[[EmbeddedServer, Path], Subject] = request.param
    return make(mlflow_server, write_files(tmp_path / "in", FILES))


def test_a_reference_means_the_same_until_something_changes(subject: Subject) -> None:
    assert subject.registry.identify(subject.ref) == subject.registry.identify(subject.ref)


def test_absent_and_foreign_references_are_typed_errors_with_a_remedy(subject: Subject) -> None:
    for ref in (subject.absent, subject.foreign):
        with pytest.raises(QuantGuardError) as caught:
            subject.registry.identify(ref)
        assert caught.value.remedy


def test_a_download_is_whole_counts_bytes_and_can_be_repeated(subject: Subject, tmp_path: Path) -> None:
    identity = subject.registry.identify(subject.ref)
    write_files(tmp_path / "out.partial", {"left by a kill": b""})
    steps = Steps()
    for _ in range(2):
        subject.registry.download(identity, tmp_path / "out", progress=steps)
        assert read_files(tmp_path / "out") == FILES
    total = sum(map(len, FILES.values()))
    assert steps.counts[-1] == (total, total)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_publishing_reports_the_version_and_what_happened_and_can_be_repeated(subject: Subject, tmp_path: Path) -> None:
    registry, identity = subject.registry, subject.registry.identify(subject.ref)
    for verdict in Verdict:
        wanted = publication(tmp_path, verdict)
        for _ in range(2):
            published = {
                Verdict.PROMOTE: lambda p: registry.promote(identity, alias="champion", publication=p),
                Verdict.BLOCK: lambda p: registry.block(identity, alias="champion", publication=p),
                Verdict.HOLD: lambda p: registry.hold(identity, publication=p),
            }[verdict](wanted)
            assert published.identity == identity
            assert published.events
            assert all(published.events)
    assert registry.identify(subject.ref) == identity


def test_a_derivative_is_the_same_however_often_it_is_registered(subject: Subject, tmp_path: Path) -> None:
    registry, identity = subject.registry, subject.registry.identify(subject.ref)
    hardened = write_files(tmp_path / "hardened", FILES | {"model.safetensors": b"repaired"})
    wanted = publication(tmp_path, Verdict.PROMOTE)
    derived = registry.register_derivative(identity, hardened, publication=wanted)
    assert registry.register_derivative(identity, hardened, publication=wanted) == derived
    assert derived != identity
    assert derived.name == identity.name
    registry.download(derived, tmp_path / "out")
    assert read_files(tmp_path / "out") == read_files(hardened)


def test_a_directory_is_copied_with_its_links_and_none_is_followed(tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", FILES)
    (source / "file link").symlink_to("/etc/passwd")
    (source / "directory link").symlink_to("/etc")
    registry = DirectoryRegistry()
    registry.download(registry.identify(LocalDirectory(source)), tmp_path / "out")
    for name in ("file link", "directory link"):
        assert (tmp_path / "out" / name).is_symlink()


def test_a_pipe_in_a_model_directory_is_refused_and_not_opened(tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", FILES)
    os.mkfifo(source / "pipe")
    registry = DirectoryRegistry()
    with pytest.raises(UnsafeCheckpointError, match="pipe: is not a regular file"):
        registry.download(registry.identify(LocalDirectory(source)), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_work_directory_inside_the_model_is_refused(tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", FILES)
    registry = DirectoryRegistry()
    with pytest.raises(QuantGuardError, match="inside the model"):
        registry.download(registry.identify(LocalDirectory(source)), source / "work" / "model")
    assert read_files(source) == FILES


def loaded(code: str) -> set[str]:
    """Which heavy libraries a fresh Python has loaded after `code`."""
    heavy = "print(*{'mlflow', 'torch', 'transformers', 'bitsandbytes', 'requests'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {heavy}"], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


ALL = (
    "import sys, quantguard.registry.directory, quantguard.registry.interface, quantguard.registry.embedded, "
    "quantguard.registry.mlflow_registry, quantguard.registry.register"
)


def test_importing_the_room_loads_nothing_heavy() -> None:
    assert loaded(ALL) == set()


def test_using_mlflow_loads_no_torch() -> None:
    use = "r = quantguard.registry.mlflow_registry.MlflowRegistry('http://127.0.0.1:1'); r._client; r._roots"
    store = "import quantguard.registry.store as s; s.open_store('mlflow-artifacts:/1', 'http://127.0.0.1:1')"
    assert loaded(f"{ALL}; {use}; {store}") == {"mlflow", "requests"}
