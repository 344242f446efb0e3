"""The file of a ledger, opened by one writer at a time.

`LEDGER.intent` beside it says what is being appended, and is written and synced first:

    HEX OFFSET\n       SHA-256 of the rest of this line and of the line; size of the ledger in bytes before the append
    LINE

A writer that was killed is finished by the next one from there, so that what is cut off is never taken for a writer's
death: a ledger that ends in the middle of a line, and an intent that does not say how that line goes on, is damaged.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantguard.core.durable import sync_directory
from quantguard.core.errors import EvidenceError
from quantguard.evidence.ledger_entry import MOST_BYTES

_PATIENCE: Final = 60.0  # seconds that a writer waits for the others; an append takes milliseconds
_READ_ONLY: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo must not make us wait
_APPENDING: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_INTENDING: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MODE: Final = 0o644  # auditors read it


@dataclass(frozen=True, slots=True)
class Intent:
    """An append that was begun, and may be over."""

    offset: int  # size of the ledger before it, bytes
    line: bytes  # what is appended, with its line feed


def intent_path(path: Path) -> Path:
    """Where the intent of a ledger lies."""
    return path.with_name(path.name + ".intent")


@contextmanager
def opened_to_append(path: Path) -> Iterator[int]:
    """A descriptor that appends to `path`, which is made where absent; no other writer or reader is at it meanwhile.

    Raises:
        EvidenceError: no ordinary file, no permission, no directory there, or others keep it for a minute.
    """
    existed = path.exists()
    with _opened(path, _APPENDING, fcntl.LOCK_EX) as descriptor:
        if not existed:
            sync_directory(path.parent)
        yield descriptor


@contextmanager
def opened_to_read(path: Path) -> Iterator[int]:
    """A descriptor that reads `path`; nobody appends meanwhile.

    Raises:
        EvidenceError: as for `opened_to_append`, or it is absent.
    """
    if not path.exists():
        raise EvidenceError("there is no such ledger", path=path, remedy="name the file that --ledger named")
    with _opened(path, _READ_ONLY, fcntl.LOCK_SH) as descriptor:
        yield descriptor


@contextmanager
def mapped(descriptor: int) -> Iterator[mmap.mmap | bytes]:
    """The bytes of an open file, which are not read before they are asked for."""
    if os.fstat(descriptor).st_size == 0:  # cannot be mapped
        yield b""
        return
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
        yield content


def read_intent(path: Path) -> Intent | None:
    """The intent of the ledger at `path`; None where there is none, or it was never written whole.

    Raises:
        EvidenceError: it is no ordinary file, or may not be read.
    """
    beside = intent_path(path)
    try:
        with _descriptor(beside, _READ_ONLY) as descriptor:
            data = os.read(descriptor, 2 * MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(beside, error) from error
    head, _, line = data.partition(b"\n")
    digest, _, offset = head.partition(b" ")
    if hashlib.sha256(offset + b"\n" + line).hexdigest().encode() != digest:
        return None
    return Intent(int(offset), line)


def write_intent(path: Path, intent: Intent) -> None:
    """Say, so that it outlasts a crash, what is going to be appended to the ledger at `path`.

    Raises:
        EvidenceError: it cannot be written.
    """
    rest = b"%d\n" % intent.offset + intent.line
    data = hashlib.sha256(rest).hexdigest().encode() + b" " + rest
    beside = intent_path(path)
    existed = beside.exists()
    try:
        # In place: half of it is none, as its digest says, and then nothing was appended yet either.
        with _descriptor(beside, _INTENDING) as descriptor:
            _write_all(descriptor, data)
            os.ftruncate(descriptor, len(data))
            os.fdatasync(descriptor)
        if not existed:
            sync_directory(path.parent)
    except OSError as error:
        raise _unusable(beside, error) from error


def append_bytes(descriptor: int, path: Path, rest: bytes) -> None:
    """Append `rest` and make it last. Where that fails, none of it stays, and the intent is withdrawn.

    Raises:
        EvidenceError: the disk is full or broken.
    """
    size = os.fstat(descriptor).st_size
    try:
        _write_all(descriptor, rest)
        os.fsync(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):  # where it stays, so does the intent, and the next writer finishes it
            os.ftruncate(descriptor, size)
            os.truncate(intent_path(path), 0)
        raise _unusable(path, error) from error


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def _opened(path: Path, flags: int, lock: int) -> Iterator[int]:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with _descriptor(path, flags) as descriptor:
                _lock(descriptor, lock, path, deadline)
                if not _is_at(descriptor, path):  # moved away while we waited: its place is another file's now
                    continue
                yield descriptor
                return
        except OSError as error:
            raise _unusable(path, error) from error


@contextmanager
def _descriptor(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, _MODE)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise EvidenceError("a ledger is an ordinary file", path=path, remedy="name another")
        yield descriptor
    finally:
        os.close(descriptor)  # and with it the lock, which ends with a killed process too


def _lock(descriptor: int, lock: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise EvidenceError(
                    f"another process has kept it for {_PATIENCE:.0f} s", path=path, remedy="end it and run again"
                ) from error
            time.sleep(random.uniform(0.0005, 0.005))  # noqa: S311  so that writers do not wait in step
        else:
            return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


_REMEDIES: Final = {
    errno.EFBIG: "free space there and run again",
    errno.ENOENT: "make the directory, or mount what holds the ledger",
    errno.ELOOP: "name the file itself, not a symbolic link",
    errno.ENOSPC: "free space there and run again",
    errno.EDQUOT: "free space there and run again",
    errno.EACCES: "let this user write it",
    errno.EPERM: "let this user write it",
    errno.EROFS: "name a ledger on a file system that can be written",
    errno.ENOLCK: "keep the ledger on a file system that has locks",
    errno.EOPNOTSUPP: "keep the ledger on a file system that has locks",
}


def _unusable(path: Path, error: OSError) -> EvidenceError:
    remedy = _REMEDIES.get(error.errno or 0, "name an ordinary file on a local disk")
    return EvidenceError(f"cannot be used as a ledger: {error.strerror or error}", path=path, remedy=remedy)
