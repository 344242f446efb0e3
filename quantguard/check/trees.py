"""Two kinds of trees that files are read from: a commit, and what is checked out. Links are never followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from quantguard.check.git import Entry, Objects

_LINK: Final = "120000"


@dataclass(frozen=True, slots=True)
class Refused:
    """Something is there that is not read."""

    why: str  # goes on after the path, e.g. "is a symbolic link"


class Tree(Protocol):
    @property
    def paths(self) -> Collection[str]:
        """Every file and link, with slashes."""

    def link(self, path: str) -> str | None:
        """Where the symbolic link `path` leads, as it is written; None where it is none."""

    def read(self, path: str, limit: int) -> bytes | Refused | None:
        """A regular file of at most `limit` bytes; None where nothing is.

        Raises:
            GitError: git does not answer.
        """


def parents(path: str) -> tuple[str, ...]:
    """The directories above `path`, outermost first."""
    return tuple(str(parent) for parent in reversed(PurePosixPath(path).parents))[1:]


class CommitTree:
    """The files of one commit."""

    def __init__(self, entries: Sequence[Entry], objects: Objects) -> None:
        self._entries = {entry.path: entry for entry in entries}
        self._objects = objects

    @property
    def paths(self) -> Collection[str]:
        return self._entries.keys()

    def link(self, path: str) -> str | None:
        entry = self._entries.get(path)
        if entry is None or entry.mode != _LINK:
            return None
        target = self._objects.read(entry.object_id, 4096)
        return os.fsdecode(target) if isinstance(target, bytes) else ""

    def read(self, path: str, limit: int) -> bytes | Refused | None:
        for above in parents(path):
            if above in self._entries:
                return Refused(f"lies behind {above}, which is no directory")
        entry = self._entries.get(path)
        if entry is None:
            return None
        if entry.mode == _LINK:
            return Refused("is a symbolic link")
        data = self._objects.read(entry.object_id, limit)
        return data if isinstance(data, bytes) else _too_large(data, limit)


class CheckedOut:
    """The files on disk that git tracks or would add."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self._root = root
        self._paths = frozenset(paths)

    @property
    def paths(self) -> Collection[str]:
        return self._paths

    def link(self, path: str) -> str | None:
        try:
            return str(Path(self._root, path).readlink())
        except OSError:
            return None

    def read(self, path: str, limit: int) -> bytes | Refused | None:
        opened = self._open(path)
        if not isinstance(opened, int):
            return opened
        status = os.fstat(opened)
        if stat.S_ISREG(status.st_mode) and path in self._paths:
            with os.fdopen(opened, "rb") as stream:
                data = stream.read(limit + 1)
            return data if len(data) <= limit else _too_large(max(status.st_size, len(data)), limit)
        os.close(opened)
        if stat.S_ISDIR(status.st_mode):
            return None
        why = "is on this machine only: git ignores it" if stat.S_ISREG(status.st_mode) else "is not a regular file"
        return Refused(why)

    def _open(self, path: str) -> int | Refused | None:
        """A file descriptor, reached one directory at a time so that no part of the way can be a link."""
        *above, name = path.split("/")
        directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in above:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                try:
                    below = os.open(part, flags, dir_fd=directory)
                except OSError as error:
                    return self._why_not(error, part, directory, f"lies behind {part}, which is a symbolic link")
                os.close(directory)
                directory = below
            try:
                # O_NONBLOCK: opening a pipe that nobody writes to must not hang.
                return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            except OSError as error:
                return self._why_not(error, name, directory, "is a symbolic link")
        finally:
            os.close(directory)

    @staticmethod
    def _why_not(error: OSError, name: str, directory: int, link: str) -> Refused | None:
        with suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                return Refused(link)
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        return Refused(f"cannot be read: {error.strerror}")


def _too_large(size: int, limit: int) -> Refused:
    return Refused(f"has {size} bytes, more than the {limit} that are read")
