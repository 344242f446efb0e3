"""A registered model onto a consumer's disk, where it appears only once its bytes are those that evidence admits.

What admits is somebody else's (`Gatekeeper`); `quantguard.attest.load` has the one that reads keys and a policy. The
law here: after anything but success there is nothing at the directory, whatever was there before.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from quantguard.checkpoint.digest import GIT_FILES, model_digest
from quantguard.core.errors import QuantGuardError, RegistryError, UsageError, VersionChangedError
from quantguard.core.model import VersionIdentity, parse_served_ref
from quantguard.core.progress import Progress, silent
from quantguard.evidence.records import canonical_json, write_atomically
from quantguard.registry.interface import Consumed, Resolved

_SCHEMA: Final = "quantguard.loaded/1"


@dataclass(frozen=True, slots=True)
class Passed:
    """What a gatekeeper says of a version that may be used."""

    model_digest: str  # sha256:HEX of the only bytes that it may be used with
    told: Mapping[str, str]  # by what it was admitted, for the receipt


class Gatekeeper(Protocol):
    def admit(self, version: Resolved, digest: str | None) -> Passed:
        """Whether this version may be used; with `digest`, with these bytes.

        Raises:
            NotAdmittedError: it may not.
        """


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that may be used."""

    directory: Path
    identity: VersionIdentity
    passed: Passed
    downloaded: bool  # False where the same bytes were there before, and were checked again


def load_verified(
    ref: str,
    directory: Path,
    opened: Callable[[], tuple[Consumed, Gatekeeper]],
    *,
    progress: Progress = silent,
) -> Loaded:
    """Put the model that `ref` names now at `directory`, if it is admitted as that registration and by its bytes.

    `ref` is `models:/NAME@ALIAS`, looked up once, or `models:/NAME/VERSION`. Evidence is asked before the first byte
    is fetched, and again with the digest of what came. An earlier model of this function's at `directory` makes way
    before anything else, before `opened` reads a key or a policy, and is used again only where its bytes are those that
    are admitted now. Git's own files, which no digest covers, are left out. Beside the directory lies what was
    admitted, as `NAME.verified.json`.

    Raises:
        NotAdmittedError: refused.
        UsageError: no such reference; somebody else is loading to the same place; or `directory` holds what this
            function did not put there, which stays.
        RegistryError: no such version, no answer, no permission, or changed while it was fetched.
        CheckpointError: the files are not those of a model: a link, a special file.
    """
    if directory.name in ("", ".."):
        raise UsageError("is no name for a new directory", path=directory, remedy="name one, e.g. /srv/model")
    with _alone(directory), _written(directory):
        unverified = directory.with_name(f"{directory.name}.unverified")
        _make_way(directory, unverified)
        named = parse_served_ref(ref)
        source, gatekeeper = opened()
        try:
            version = source.resolve(named)
            passed = gatekeeper.admit(version, None)
            found = model_digest(unverified, progress=progress) if unverified.is_dir() else ""
            kept = found == passed.model_digest
            if not kept:
                shutil.rmtree(unverified, ignore_errors=True)
                source.download(version.identity, unverified, progress=progress)
                found = model_digest(unverified, progress=progress)
            passed = gatekeeper.admit(version, found)
            _without_git_files(unverified)
        except QuantGuardError as error:
            # What is here may be right where the registry could not tell: it is then not fetched again, only checked.
            if not isinstance(error, RegistryError) or isinstance(error, VersionChangedError):
                shutil.rmtree(unverified, ignore_errors=True)
            raise
        _appear(unverified, directory, {"ref": ref, "version": str(version.identity), **passed.told})
    return Loaded(directory, version.identity, passed, downloaded=not kept)


def receipt_of(directory: Path) -> Path:
    """The file beside `directory` that says what was admitted there."""
    return directory.with_name(f"{directory.name}.verified.json")


@contextmanager
def _written(directory: Path) -> Iterator[None]:
    """Raises:
    RegistryError: the disk is full, or somebody forbids it.
    """
    try:
        yield
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}"
        raise RegistryError(
            message, path=directory, remedy="free space or permissions there, then run again"
        ) from error


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Raises:
    UsageError: somebody else is loading to the same place, or nothing can be written there.
    """
    lock = directory.with_name(f".{directory.name}.lock")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("ab")
    except OSError as error:
        remedy = "name a directory that you may write to"
        raise UsageError(f"cannot be written: {error.strerror}", path=directory, remedy=remedy) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError("somebody is loading a model there", path=directory, remedy="wait for it") from error
        yield


def _make_way(directory: Path, unverified: Path) -> None:
    """Raises:
    UsageError: what is there is not what an earlier call put there.
    """
    receipt = receipt_of(directory)
    if directory.is_symlink() or (directory.exists() and not receipt.is_file()):
        remedy = "name a directory that is not there yet, or remove it"
        raise UsageError("holds what quantguard load did not put there", path=directory, remedy=remedy)
    if unverified.is_symlink():  # it would become the directory
        unverified.unlink()
    if directory.exists():
        shutil.rmtree(unverified, ignore_errors=True)
        directory.rename(unverified)
    receipt.unlink(missing_ok=True)


def _without_git_files(directory: Path) -> None:
    for name in GIT_FILES:
        path = directory / name
        if path.is_dir():  # no link: the digest would have been refused
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _appear(unverified: Path, directory: Path, told: Mapping[str, str]) -> None:
    """The receipt first: killed in between, the next call finds a receipt of nothing, not a model without one."""
    write_atomically(receipt_of(directory), canonical_json({"schema": _SCHEMA, **told}) + b"\n")
    unverified.rename(directory)
