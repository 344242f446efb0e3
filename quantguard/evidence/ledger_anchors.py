"""Anchors: where the last line of a ledger is kept besides, so that what is cut off its end is missed.

An anchor is a copy of a signed line, so it needs no signature of its own. It is moved forward only, and only along the
ledger: where what it keeps is no longer in the ledger, it stays, and nothing is appended.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from quantguard.core.errors import EvidenceError, UsageError
from quantguard.core.ledger import AnchorKind
from quantguard.evidence.keys import Signer
from quantguard.evidence.ledger import Appended, append, require_anchored, told_of
from quantguard.evidence.ledger import read_last as last_line
from quantguard.evidence.ledger_entry import MOST_BYTES, Decided
from quantguard.evidence.ledger_file import mapped, opened_to_read
from quantguard.evidence.ledger_verify import Kept
from quantguard.evidence.records import write_atomically

_TRIES = 5  # of moving an anchor that others move too


@dataclass(frozen=True, slots=True)
class AnchorPlace:
    """One anchor as the operator names it: file:PATH, git:REPOSITORY or mlflow."""

    kind: AnchorKind
    where: str  # path; empty for mlflow

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.where}" if self.where else self.kind.value


def parse_anchor(text: str) -> AnchorPlace:
    """`file:PATH`, `git:REPOSITORY`, or `mlflow`: a tag in the registry that the command talks to.

    Raises:
        UsageError: it is none of these.
    """
    name, _, where = text.partition(":")
    known = {kind.value: kind for kind in AnchorKind}
    if name not in known or bool(where) is (known[name] is AnchorKind.MLFLOW):
        raise UsageError(f"{text!r} is no anchor", remedy="use file:PATH, git:REPOSITORY or mlflow")
    return AnchorPlace(known[name], where)


class Anchor(Protocol):
    @property
    def where(self) -> str:
        """As the operator named it."""

    def read(self) -> bytes | None:
        """The line that is kept; None where none is yet.

        Raises:
            QuantGuardError: it cannot be read, so nothing can be told.
        """

    def move(self, line: bytes, before: bytes | None) -> bool:
        """Keep `line` instead of `before`; False where something else is kept by now, which then stays.

        Raises:
            QuantGuardError: it cannot be written.
        """


class FileAnchor:
    """A file; on another disk or host, or it is lost or cut together with the ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def where(self) -> str:
        return f"{AnchorKind.FILE.value}:{self._path}"

    def read(self) -> bytes | None:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            if not self._path.parent.is_dir():  # not mounted, say: what it keeps is not known
                raise self._unusable("its directory is not there") from error
            return None
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self._unusable("not an ordinary file")
            return os.read(descriptor, MOST_BYTES).removesuffix(b"\n")
        finally:
            os.close(descriptor)

    def move(self, line: bytes, before: bytes | None) -> bool:
        try:
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if self.read() != before:
                return False
            write_atomically(self._path, line + b"\n")
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        finally:
            os.close(directory)
        return True

    def _unusable(self, why: str) -> EvidenceError:
        remedy = "name a file in a directory that exists and can be written"
        return EvidenceError(f"cannot be used as an anchor: {why}", path=self._path, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger and where its head is kept besides."""

    path: Path
    anchors: tuple[Anchor, ...] = ()

    def enter(self, decided: Decided, signer: Signer, *, now: datetime) -> tuple[Appended, tuple[str, ...]]:
        """Enter a decision once and anchor it; with what was done, a sentence each. When this returns it is kept.

        Killed anywhere and run again, it completes what is missing.

        Raises:
            LedgerError: the ledger is not the one that was written or anchored; nothing was appended.
            QuantGuardError: the ledger or an anchor cannot be read or written.
        """
        kept = tuple(line for anchor in self.anchors if (line := anchor.read()) is not None)
        done = append(self.path, decided, signer, now=now, anchors=kept)
        events = [f"{told_of(done.line)} of the ledger {self.path.name} " + ("made" if done.new else "was there")]
        if done.finished:
            events.insert(0, f"entry {done.finished} of the ledger, whose writer had died, finished")
        return done, (*events, *self.anchor())

    def anchor(self) -> tuple[str, ...]:
        """Bring every anchor to the last entry; what was done, a sentence each.

        Raises:
            LedgerError: what an anchor keeps is not in the ledger; it stays.
            QuantGuardError: the ledger or an anchor cannot be read or written.
        """
        return tuple(event for anchor in self.anchors if (event := self._move(anchor)))

    def kept(self) -> tuple[Kept, ...]:
        """What the anchors keep.

        Raises:
            QuantGuardError: one cannot be read.
        """
        return tuple(Kept(anchor.where, anchor.read()) for anchor in self.anchors)

    def _move(self, anchor: Anchor) -> str:
        for _ in range(_TRIES):
            before = anchor.read()
            with opened_to_read(self.path) as descriptor, mapped(descriptor) as content:
                require_anchored(content, () if before is None else (before,), self.path)
            last = last_line(self.path)
            if last is None or last == before:
                return ""
            if anchor.move(last, before):
                began = ", which kept nothing before" if before is None else ""
                return f"{told_of(last)} anchored in {anchor.where}{began}"
        raise EvidenceError(f"{anchor.where} is moved by others all the time", remedy="run again")


def open_file_or_git(place: AnchorPlace, environment: Mapping[str, str]) -> Anchor:
    """The anchor of a place that needs no registry.

    Raises:
        UsageError: it needs one.
    """
    if place.kind is AnchorKind.FILE:
        return FileAnchor(Path(place.where))
    if place.kind is AnchorKind.GIT:
        from quantguard.evidence.ledger_git import GitAnchor

        return GitAnchor(Path(place.where), environment)
    raise UsageError("the anchor mlflow needs a registry", remedy="give --tracking-uri, or set MLFLOW_TRACKING_URI")
