"""Whose signatures count in a check: keys of the operator, or those that the base branch's manifest names."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import yaml

from quantguard.check.places import file_place
from quantguard.check.remarks import DIFFERENT, INVALID, LOOSER, NEW
from quantguard.check.snapshot import Snapshot, inside
from quantguard.check.trees import Refused
from quantguard.check.waivers import Side
from quantguard.core.errors import KeyFileError
from quantguard.core.remark import Level, Remark
from quantguard.evidence.trusted import TrustedKeys, read_trusted

_YAML: Final = (".yaml", ".yml")
_MOST: Final = 1000  # keys that a keyring may name
_MERGE: Final = "merge the keys first: those of the base branch are what counts"


@dataclass(frozen=True, slots=True)
class Trust:
    """What signed evidence is held against."""

    keys: TrustedKeys
    environment: str
    now: datetime  # in UTC


def trusted_keys(given: Path | None, governing: Side) -> TrustedKeys | Remark | None:
    """The keys that count, or why there are none where some are named; None where nobody names any.

    `governing` is the base branch: a change cannot bring the keys that it is judged by.

    Raises:
        KeyFileError: what the operator gave is no key.
        GitError: git does not answer.
    """
    if given is not None:
        return read_trusted(given)
    name = None if governing.manifest is None else governing.manifest.manifest.keys
    if name is None:
        return None
    path = inside(posixpath.dirname(governing.path), name)
    copied = None if path is None else _copied(governing.tree, path)
    if path is None or not isinstance(copied, Path):
        why = copied.why if isinstance(copied, Refused) else "is no file of the base branch"
        return Remark(INVALID, Level.ERROR, f"keys: {name} {why}", file_place(governing.path), "keys")
    try:
        return read_trusted(copied)
    except KeyFileError as error:
        return Remark(INVALID, Level.ERROR, f"keys: {error.message} ({error.remedy})", file_place(path), "keys")


def key_remarks(before: Side, after: Side, looser: Level) -> Iterator[Remark]:
    """What a change does to the keys that the manifest names."""
    if before.manifest is None or after.manifest is None:
        return
    was, now = before.manifest.manifest.keys, after.manifest.manifest.keys
    at = after.manifest.document.place(("keys",))
    if was is not None and now is None:
        message = "looser: the keys were taken out, and the evidence of pins is not verified any more"
        yield Remark(LOOSER, looser, message, at, "keys")
    elif was is None and now is not None:
        yield Remark(NEW, Level.WARNING, f"{now} says whose signatures count from now on: {_MERGE}", at, "keys")
    elif was is not None and now is not None and _bytes(before, was) != _bytes(after, now):
        yield Remark(DIFFERENT, Level.WARNING, f"{now} trusts other keys than before: {_MERGE}", at, "keys")


def _bytes(side: Side, name: str) -> bytes | None:
    path = inside(posixpath.dirname(side.path), name)
    copied = None if path is None else _copied(side.tree, path)
    if path is None or not isinstance(copied, Path):
        return None
    return b"".join([copied.read_bytes(), *(_found(side.tree, path, public) for public in _publics(copied))])


def _found(tree: Snapshot, ring: str, public: str) -> bytes:
    path = inside(posixpath.dirname(ring), public)
    copied = None if path is None else tree.copied(path)
    return copied.read_bytes() if isinstance(copied, Path) else b""


def _copied(tree: Snapshot, path: str) -> Path | Refused | None:
    """The file at `path`, and the keys that it names where it is a keyring, in a directory of ours."""
    target = tree.copied(path)
    if isinstance(target, Path) and target.suffix in _YAML:
        for public in _publics(target):
            if (named := inside(posixpath.dirname(path), public)) is None:
                return Refused(f"names {public}, which leads out of the repository")
            if isinstance(there := tree.copied(named), Refused):
                return Refused(f"names {public}, which {there.why}")
    return target


def _publics(ring: Path) -> list[str]:
    """What a keyring names, without judging it: `read_trusted` does."""
    if ring.suffix not in _YAML:
        return []
    try:
        root = yaml.compose(ring.read_bytes(), Loader=yaml.SafeLoader)
        keys = next(value for key, value in (root.value if root is not None else ()) if key.value == "keys")
        found = [value.value for entry in keys.value for key, value in entry.value if key.value == "public"]
    except (yaml.YAMLError, StopIteration, AttributeError, TypeError, ValueError, RecursionError):
        return []
    return [name for name in found[:_MOST] if isinstance(name, str)]
