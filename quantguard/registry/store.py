"""A version's files from MLflow's artifact store onto the disk.

`_download_file` is the method that every artifact repository of MLflow must implement; the public `download_artifacts`
draws its own progress bars and, without a destination, returns the live directory of a local store.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantguard.core.errors import NothingToGateError, RegistryError
from quantguard.core.progress import Progress
from quantguard.registry.copying import require_room

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_MAX_FILES = 100_000
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class RemoteFile:
    path: str  # relative to the root of the store, with slashes
    size: int | None  # bytes; None where the store does not say (MLflow leaves the size of an empty file out)


def open_store(location: str, tracking_uri: str) -> ArtifactRepository:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=tracking_uri, registry_uri=tracking_uri)


def list_files(store: ArtifactRepository, what: str) -> tuple[RemoteFile, ...]:
    """Every file below the root of `store`, sorted by path.

    Raises:
        NothingToGateError: there is none.
        RegistryError: a path that leaves the root, or more files than a model has.
    """
    found: list[RemoteFile] = []
    pending: list[str | None] = [None]
    while pending:
        directory = pending.pop()
        for info in store.list_artifacts(directory):
            _require_plain(info.path, directory, what)
            if info.is_dir:
                pending.append(info.path)
            else:
                found.append(RemoteFile(info.path, info.file_size))
        if len(found) + len(pending) > _MAX_FILES:
            raise RegistryError(f"{what} holds more than {_MAX_FILES} files", remedy="register the model alone")
    if not found:
        raise NothingToGateError(f"{what} holds no files", remedy="log the model's files and register them again")
    return tuple(sorted(found, key=lambda file: file.path))


def _require_plain(path: str, parent: str | None, what: str) -> None:
    parts = path.split("/")
    below = parent is None or path.startswith(f"{parent}/")
    if not below or len(parts) > _MAX_DEPTH or any(part in ("", ".", "..") for part in parts) or "\\" in path:
        raise RegistryError(f"{what} lists the path {path!r}, which is not one of its own", remedy="register it again")


def fetch_files(
    store: ArtifactRepository, files: tuple[RemoteFile, ...], destination: Path, what: str, progress: Progress
) -> None:
    """Download `files` into the existing directory `destination`; `progress` counts bytes.

    Raises:
        RegistryError: no room for them (before the first byte), or a file came shorter or longer than listed.
    """
    total = sum(file.size or 0 for file in files)
    require_room(destination, total)
    done = 0
    for file in files:
        progress("fetch", done, total, file.path)
        target = destination.joinpath(*file.path.split("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        store._download_file(file.path, str(target))  # type: ignore[no-untyped-call]  # untyped in MLflow
        size = target.stat().st_size
        if file.size is not None and size != file.size:
            raise RegistryError(f"{what}: {file.path} came with {size} of {file.size} bytes", remedy="run again")
        done += size
    progress("fetch", total, total)
