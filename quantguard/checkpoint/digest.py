"""Which bytes these are: the manifest of OpenSSF model-signing and digests of it.

The manifest has the SHA-256 of every regular file, ordered by path components, as `model_signing.hashing.hash` makes
it with its defaults ("files" serialization). Like there, git's own files at the top of the directory are not part of
the model: `.git`, `.gitattributes`, `.github`, `.gitignore`. Everything else is, a signature file included: keep
signatures outside of the directory. Empty directories do not count, and neither do times, owners or modes.

Two digests are made of it. `root_digest` is what model-signing writes as the subject of a signature: the SHA-256 of
the files' digests one after the other. It does not cover the *names*: renaming files so that their order stays the
same keeps it, for example a clean `model.safetensors` away and a poisoned backup into its place. `model_digest`, which
stands for the model everywhere in QuantGuard, is over the same manifest with names and sizes (docs/decisions/0003).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantguard.checkpoint.files import PIECE, Item, Kind, open_regular, quote, size_of, walk
from quantguard.core.errors import CheckpointError, UnsafeCheckpointError
from quantguard.core.progress import Progress, silent

GIT_FILES: Final = frozenset({".git", ".gitattributes", ".github", ".gitignore"})


@dataclass(frozen=True, slots=True)
class FileDigest:
    path: str  # relative to the model directory, posix separators
    sha256: str  # 64 hexadecimal digits
    size: int  # bytes, >= 0


def manifest(directory: Path, *, progress: Progress = silent) -> tuple[FileDigest, ...]:
    """Hash every file of the model in pieces, in model-signing's order; progress counts bytes.

    Raises:
        UsageError: not a directory.
        UnsafeCheckpointError: a symbolic link or special file (model-signing refuses those too).
        CheckpointError: a file cannot be read, changes while it is hashed, or its name is not UTF-8.
    """
    items = sorted(_hashed(directory), key=lambda item: item.path.split("/"))
    total = sum(item.size for item in items)
    done = 0
    digests = []
    for item in items:
        progress("digest", done, total, "")
        digests.append(FileDigest(item.path, _hash(directory, item), item.size))
        done += item.size
    progress("digest", done, total, "")
    return tuple(digests)


def model_digest(directory: Path, *, progress: Progress = silent) -> str:
    """The digest that stands for a model's bytes, as `sha256:HEX`: over the manifest, names and sizes included.

    Raises:
        UsageError, CheckpointError: as `manifest`.
    """
    return named_digest(manifest(directory, progress=progress))


def root_digest(files: Iterable[FileDigest]) -> str:
    """`sha256:HEX` over the raw digests of `files` in their order (model-signing's `Payload`)."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(bytes.fromhex(file.sha256))
    return "sha256:" + whole.hexdigest()


def named_digest(files: Iterable[FileDigest]) -> str:
    """`sha256:HEX` of the manifest as canonical JSON, `[[path, sha256, size], ...]`: names and sizes are covered."""
    rows = [[file.path, file.sha256, file.size] for file in files]
    return "sha256:" + hashlib.sha256(json.dumps(rows, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def _hashed(directory: Path) -> Iterable[Item]:
    for item in walk(directory):
        try:
            item.path.encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(
                f"the file name {quote(item.path)} is not UTF-8", path=directory, remedy="rename the file"
            ) from error
        if item.kind is not Kind.FILE:
            raise UnsafeCheckpointError(
                f"{quote(item.path)} is a {item.kind.value}",
                path=directory,
                remedy="register copies of the files, not links to them",
            )
        if item.path.split("/", 1)[0] not in GIT_FILES:
            yield item


def _hash(directory: Path, item: Item) -> str:
    whole = hashlib.sha256()
    read = 0
    with open_regular(directory, item.path) as stream:
        try:
            while piece := stream.read(PIECE):
                whole.update(piece)
                read += len(piece)
            unchanged = read == item.size == size_of(stream)
        except OSError as error:
            raise CheckpointError(f"{quote(item.path)} cannot be read: {error.strerror}", path=directory) from error
    if not unchanged:
        raise CheckpointError(
            f"{quote(item.path)} changed while it was hashed",
            path=directory,
            remedy="let nobody write to the directory and run again",
        )
    return whole.hexdigest()
