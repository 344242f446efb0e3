"""Files onto the local disk: room first, then bytes, then the name. Standard library only."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantguard.core.errors import NothingToGateError, RegistryError, UnsafeCheckpointError
from quantguard.core.progress import Progress

# Left free beside the model, for the evidence and the file system's own needs.
_SPARE_BYTES = 64 * 1024 * 1024


@contextmanager
def appearing(destination: Path) -> Iterator[Path]:
    """A fresh directory beside `destination` that takes its name at the end, and is removed if anything is raised.

    Meanwhile its suffix is `.partial`; what a killed run left under that name is removed first.
    """
    partial = destination.with_name(f"{destination.name}.partial")
    leftovers = (partial, partial.with_name(f"{partial.name}.settled"))
    for leftover in leftovers:
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        for leftover in leftovers:
            shutil.rmtree(leftover, ignore_errors=True)
        raise
    if destination.exists():
        shutil.rmtree(destination)
    partial.rename(destination)


def require_room(directory: Path, size: int) -> None:
    """Raises:
    RegistryError: fewer than `size` bytes and a little more are free where `directory` is or will be.
    """
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < size + _SPARE_BYTES:
        raise RegistryError(
            f"the model needs {size} bytes and {free} are free", path=existing, remedy="free space there and run again"
        )


def copy_directory(source: Path, destination: Path, progress: Progress) -> None:
    """Copy regular files and, as they are, symbolic links: none is followed, so that a reader of the copy sees them.

    Raises:
        NothingToGateError: `source` holds no files.
        UnsafeCheckpointError: it holds a device, a socket or a pipe.
        RegistryError: no room.
    """
    entries = sorted(_entries(source))
    if not entries:
        raise NothingToGateError("holds no files", path=source, remedy="name the directory that holds config.json")
    total = sum(size for _, size in entries)
    require_room(destination, total)
    done = 0
    for relative, size in entries:
        target = destination / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        progress("fetch", done, total, relative.as_posix())
        shutil.copyfile(source / relative, target, follow_symlinks=False)
        done += size
    progress("fetch", total, total)


def _entries(source: Path) -> Iterator[tuple[Path, int]]:
    for directory, below, files in os.walk(source):
        links = [name for name in below if Path(directory, name).is_symlink()]
        for name in files + links:
            path = Path(directory, name)
            status = path.lstat()
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
                raise UnsafeCheckpointError("is not a regular file", path=path, remedy="remove it from the model")
            yield path.relative_to(source), status.st_size
