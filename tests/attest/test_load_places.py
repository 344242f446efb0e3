"""The directory that a model is loaded to: what was there makes way, and what is not ours stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantguard.attest.load import EvidenceGatekeeper
from quantguard.core.errors import (
    NotAdmittedError,
    PolicyError,
    QuantGuardError,
    RegistryError,
    RegistryUnreachableError,
    UnsafeCheckpointError,
    UsageError,
)
from quantguard.core.model import VersionIdentity
from quantguard.core.progress import Progress, silent
from quantguard.registry.load_verified import load_verified as load_admitted
from quantguard.registry.load_verified import receipt_of
from quantguard.registry.mlflow_registry import MlflowRegistry
from tests.attest.consumer import World, gatekeeper
from tests.attest.made import NOW, days
from tests.registry.world import FILES, read_files, write_files


def test_the_same_bytes_are_not_fetched_again_and_are_checked_again(world: World) -> None:
    identity = world.register()
    loaded = world.load(str(identity))
    assert not world.load(str(identity)).downloaded
    (loaded.directory / "config.json").write_bytes(b"changed on this disk")
    assert world.load(str(identity)).downloaded
    assert read_files(loaded.directory) == FILES


def not_there(world: World, identity: VersionIdentity) -> dict[str, Any]:
    return {"tracking_uri": "http://127.0.0.1:9"}


def bad_policy(world: World, identity: VersionIdentity) -> dict[str, Any]:
    return {"policy": write_files(world.folder, {"bad.yaml": b"schema: other"}) / "bad.yaml"}


def stale(world: World, identity: VersionIdentity) -> dict[str, Any]:
    return {"now": NOW + days(60)}


@pytest.mark.parametrize(
    ("change", "kind"), [(not_there, RegistryUnreachableError), (bad_policy, PolicyError), (stale, NotAdmittedError)]
)
def test_a_model_of_yesterday_is_not_there_after_a_failure_of_today(
    world: World, change: Callable[[World, VersionIdentity], dict[str, Any]], kind: type[QuantGuardError]
) -> None:
    identity = world.register()
    directory = world.load(str(identity)).directory
    with pytest.raises(kind):
        world.load(str(identity), **change(world, identity))
    assert not directory.exists()
    assert not receipt_of(directory).exists()
    assert world.load(str(identity)).downloaded is (kind is NotAdmittedError)


def test_what_somebody_else_put_there_stays(world: World, tmp_path: Path) -> None:
    identity = world.register()
    write_files(tmp_path / "model", {"mine.txt": b"mine"})
    with pytest.raises(UsageError, match="did not put there"):
        world.load(str(identity))
    assert read_files(tmp_path / "model") == {"mine.txt": b"mine"}
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="did not put there"):
        world.load(str(identity))


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_directory_without_a_name_of_its_own_is_told(world: World, name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        load_admitted("models:/m/1", Path(name), lambda: (MlflowRegistry(world.uri), gatekeeper(world)))


def test_two_loads_to_one_place_do_not_meet(world: World) -> None:
    identity = world.register()

    def opened() -> tuple[MlflowRegistry, EvidenceGatekeeper]:
        with pytest.raises(UsageError, match="somebody is loading"):
            world.load(str(identity))
        return MlflowRegistry(world.uri), gatekeeper(world)

    assert load_admitted(str(identity), world.folder / "model", opened).downloaded


def test_a_link_in_the_place_of_what_is_not_verified_yet_is_not_followed(world: World) -> None:
    """The right bytes behind it do not help: whoever owns them may change them afterwards."""
    identity = world.register()
    write_files(world.folder / "elsewhere", FILES)
    (world.folder / "model.unverified").symlink_to(world.folder / "elsewhere")
    loaded = world.load(str(identity))
    assert loaded.downloaded
    assert not loaded.directory.is_symlink()
    assert read_files(world.folder / "elsewhere") == FILES


def test_a_directory_that_cannot_be_written_is_told(world: World) -> None:
    identity = world.register()
    (world.folder / "model.unverified").write_bytes(b"a file in the way")
    with pytest.raises(RegistryError):
        world.load(str(identity))
    (world.folder / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written"):
        load_admitted(str(identity), world.folder / "file" / "model", lambda: (MlflowRegistry(""), gatekeeper(world)))


def test_a_link_among_the_files_never_appears(world: World) -> None:
    identity = world.register()

    class Linking(MlflowRegistry):
        def download(self, identity: VersionIdentity, destination: Path, *, progress: Progress = silent) -> None:
            super().download(identity, destination, progress=progress)
            (destination / ".git").symlink_to("/etc")

    with pytest.raises(UnsafeCheckpointError):
        load_admitted(str(identity), world.folder / "model", lambda: (Linking(world.uri), gatekeeper(world)))
    assert world.left() == []
