"""The only way this room opens, walks and parses files of a model directory.

The directory must not be writable by anybody else while it is judged: the checks here hold for the bytes that were
there when they were made.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO, Final

from quantguard.core.errors import CheckpointError, UnsafeCheckpointError, UsageError

MAX_FILES: Final = 20_000  # the largest published checkpoints have some hundreds
MAX_DEPTH: Final = 16  # directories below the root
PIECE: Final = 1024 * 1024  # bytes read at once where a file is copied or hashed


class Kind(Enum):
    FILE = "file"
    SYMLINK = "symbolic link"
    SPECIAL = "special file"  # pipe, socket or device


@dataclass(frozen=True, slots=True)
class Item:
    path: str  # relative to the root, posix separators; attacker-controlled text
    kind: Kind
    size: int  # bytes, >= 0


def quote(text: str, limit: int = 120) -> str:
    """Attacker-controlled `text` as one printable line: quoted, control and bidirectional characters escaped."""
    shown = text if len(text) <= limit else text[:limit] + "…"
    return repr(shown)


def walk(root: Path) -> Iterator[Item]:
    """Everything below `root` that is not a directory, by name within each directory, without following links.

    Raises:
        UsageError: `root` is not a directory.
        CheckpointError: it cannot be listed, is deeper than MAX_DEPTH, or holds more than MAX_FILES entries.
    """
    if not root.is_dir():
        raise UsageError("is not a directory", path=root, remedy="name the directory that holds config.json")
    seen = 0
    pending = [("", 0)]
    while pending:
        prefix, depth = pending.pop()
        below: list[tuple[str, int]] = []
        for entry in _listing(root, prefix):
            seen += 1
            if seen > MAX_FILES or depth > MAX_DEPTH:
                raise CheckpointError(
                    f"more than {MAX_FILES} entries or {MAX_DEPTH} levels of directories",
                    path=root,
                    remedy="register only the files of the model",
                )
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                below.append((path + "/", depth + 1))
            else:
                yield _item(root, path, entry)
        pending.extend(reversed(below))


def _listing(root: Path, prefix: str) -> list[os.DirEntry[str]]:
    """The entries of one directory by name; it stops soon after MAX_FILES, however many there are."""
    entries: list[os.DirEntry[str]] = []
    try:
        with os.scandir(root / prefix) as found:
            for entry in found:
                entries.append(entry)
                if len(entries) > MAX_FILES:
                    break
    except OSError as error:
        raise CheckpointError(f"directory {quote(prefix)} cannot be listed: {error.strerror}", path=root) from error
    return sorted(entries, key=lambda entry: entry.name)


def _item(root: Path, path: str, entry: os.DirEntry[str]) -> Item:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        raise CheckpointError(f"{quote(path)} cannot be examined: {error.strerror}", path=root) from error
    if stat.S_ISREG(status.st_mode):
        kind = Kind.FILE
    elif stat.S_ISLNK(status.st_mode):
        kind = Kind.SYMLINK
    else:
        kind = Kind.SPECIAL
    return Item(path, kind, status.st_size)


def open_regular(root: Path, name: str) -> BinaryIO:
    """Open the regular file `name` (relative to `root`) for reading, unbuffered, never through a link.

    Raises:
        UnsafeCheckpointError: a symbolic link, pipe, socket or device.
        CheckpointError: absent or unreadable.
    """
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to must not hang.
        descriptor = os.open(root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_regular(root, name) from error
        raise CheckpointError(
            f"{quote(name)} cannot be opened: {error.strerror}", path=root, remedy="register the complete directory"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(root, name)
    return os.fdopen(descriptor, "rb", buffering=0)


def _not_regular(root: Path, name: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f"{quote(name)} is not a regular file", path=root, remedy="register copies of the files, not links to them"
    )


def size_of(stream: BinaryIO) -> int:
    """Bytes in the open file now."""
    return os.fstat(stream.fileno()).st_size


def read_exactly(stream: BinaryIO, begin: int, into: memoryview, *, root: Path, name: str) -> None:
    """Fill `into` (bytes) with the file's bytes from `begin` on.

    Raises:
        CheckpointError: the file ends before that, or the device fails.
    """
    filled = 0
    try:
        stream.seek(begin)
        while filled < len(into):
            # readinto exists on raw files, which is what open_regular returns; BinaryIO does not declare it.
            count: int | None = stream.readinto(into[filled:])  # type: ignore[attr-defined]
            if not count:
                raise CheckpointError(
                    f"{quote(name)} ends at byte {begin + filled}, before byte {begin + len(into)}",
                    path=root,
                    remedy="the file is truncated or changed while it was read; fetch it again",
                )
            filled += count
    except OSError as error:
        raise CheckpointError(f"{quote(name)} cannot be read: {error.strerror}", path=root) from error


def read_bounded(root: Path, name: str, limit: int) -> bytes:
    """The whole of a regular file of at most `limit` bytes.

    Raises:
        UnsafeCheckpointError: not a regular file.
        CheckpointError: absent, unreadable or larger than `limit`.
    """
    with open_regular(root, name) as stream:
        size = size_of(stream)
        if size > limit:
            raise CheckpointError(
                f"{quote(name)} has {size} bytes, more than the {limit} that such a file may have",
                path=root,
                remedy="this is no file of a language model; register the model without it",
            )
        data = bytearray(size)
        read_exactly(stream, 0, memoryview(data), root=root, name=name)
    return bytes(data)


Pairs = list[tuple[str, Any]]


def parse_json(
    data: bytes,
    *,
    pairs: Callable[[Pairs], Any] | None = None,
    integer: Callable[[str], Any] | None = None,
    other_number: Callable[[str], Any] | None = None,
) -> Any:
    """UTF-8 JSON; every way in which it can fail is a ValueError.

    `pairs` makes an object from its members, duplicates included; `integer` and `other_number` make numbers.

    Raises:
        ValueError: not UTF-8, not JSON, nested too deep, or an integer too long to convert.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_int=integer,
            parse_float=other_number,
            parse_constant=other_number,
        )
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def distinct(members: Pairs) -> dict[str, Any]:
    """An object of which no member is named twice: parsers differ in which of two they believe.

    Raises:
        ValueError: a name occurs twice.
    """
    made: dict[str, Any] = {}
    for name, value in members:
        if name in made:
            raise ValueError(f"the key {quote(name)} occurs twice")
        made[name] = value
    return made


def read_bounded_json(root: Path, name: str, limit: int) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes.

    Raises:
        UnsafeCheckpointError: not a regular file.
        CheckpointError: absent, too large, not UTF-8 JSON, too deep, a key twice, or not an object.
    """
    data = read_bounded(root, name, limit)
    try:
        value = parse_json(data, pairs=distinct)
    except ValueError as error:
        raise CheckpointError(
            f"{quote(name)} is not valid JSON: {error}", path=root, remedy="export the model again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{quote(name)} is not a JSON object", path=root, remedy="export the model again")
    return value
