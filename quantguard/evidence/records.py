"""Evidence files: one JSON document each, versioned, canonical, written whole or not at all.

A file is `{"body": ..., "inputs": ..., "schema": "quantguard.KIND/1"}`. `inputs` is the digest of everything the body
was computed from; a reader that asks for other inputs gets None, so a stage is redone exactly when it must be.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from quantguard.core.errors import EvidenceError, StaleWorkError

T = TypeVar("T")

# Making one takes longer than most records take to read.
_adapter: Callable[[Any], TypeAdapter[Any]] = lru_cache(maxsize=256)(TypeAdapter)
VERSION = 1
_MAX_BYTES = 64 * 1024 * 1024


def canonical_json(value: object) -> bytes:
    """`value` (JSON types only) with sorted keys, no spaces, ASCII, no NaN: equal values give equal bytes.

    Raises:
        ValueError: NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def digest_of(value: object) -> str:
    """`sha256:HEX` of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value))


def digest_bytes(data: bytes) -> str:
    """`sha256:HEX` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """`sha256:HEX` of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a crash leaves the old file or the new one, never half of one.

    Raises:
        EvidenceError: the disk is full or the directory is not writable; nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the parent may be a file: then nothing was written either
            partial.unlink(missing_ok=True)
        raise EvidenceError(
            f"cannot write evidence: {error.strerror or error}", path=path, remedy="free space there and run again"
        ) from error


def to_plain(kind: type[T] | Any, body: T) -> Any:
    """`body`, an instance of the frozen dataclass (or union) `kind`, as JSON types."""
    return _adapter(kind).dump_python(body, mode="json")


def from_plain(kind: type[T], value: object) -> T:
    """The inverse of `to_plain`, and hardly more lenient: unknown keys and coerced types are refused.

    A key that has a default may be absent: it is newer than the record.

    Raises:
        EvidenceError: `value` is not one.
    """
    name = getattr(kind, "__name__", kind)
    try:
        adapter: TypeAdapter[T] = _adapter(kind)
        body = adapter.validate_json(canonical_json(value))
        same = _holds(adapter.dump_python(body, mode="json"), value)
    except (ValidationError, ValueError) as error:
        raise EvidenceError(f"this is not a {name}: {error}") from error
    if not same:
        raise EvidenceError(f"this is not a {name}: it has unknown keys or wrong types")
    return body


def _holds(whole: object, part: object) -> bool:
    """Whether two JSON values are the same, but for keys that `part` lacks."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return part.keys() <= whole.keys() and all(_holds(whole[key], value) for key, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return len(whole) == len(part) and all(map(_holds, whole, part))
    # As JSON writes them: 1 is neither 1.0 nor true.
    return type(whole) is type(part) and repr(whole) == repr(part)


def write_record(path: Path, schema: str, kind: type[T], body: T, *, inputs: str) -> str:
    """Write one evidence file and return its digest.

    Raises:
        EvidenceError: it cannot be written.
    """
    document = {"schema": f"quantguard.{schema}/{VERSION}", "inputs": inputs, "body": to_plain(kind, body)}
    write_atomically(path, canonical_json(document) + b"\n")
    return digest_file(path)


def read_record(path: Path, schema: str, kind: type[T], *, inputs: str | None = None) -> T | None:
    """The body of an evidence file, or None where it is absent or was made from other inputs.

    `inputs=None` accepts any.

    Raises:
        EvidenceError: the file is not evidence of this schema.
        StaleWorkError: it was written by another version of the schema.
    """
    if not path.exists():
        return None
    if path.stat().st_size > _MAX_BYTES:
        raise EvidenceError(f"larger than {_MAX_BYTES} bytes", path=path)
    try:
        document = json.loads(path.read_bytes())
        written, body = document["schema"], document["body"]
    except (ValueError, KeyError, TypeError) as error:
        raise EvidenceError("not an evidence file", path=path, remedy="remove it and run the stage again") from error
    expected = f"quantguard.{schema}/{VERSION}"
    if written != expected:
        raise StaleWorkError(
            f"schema {written!r}, expected {expected!r}", path=path, remedy="use a new --work directory"
        )
    if inputs is not None and document.get("inputs") != inputs:
        return None
    return from_plain(kind, body)
