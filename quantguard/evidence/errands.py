"""The files of errands, in one directory.

    errands/asked/KIND-HEX.json     what is asked (HEX of its digest), written by the room that opens weights
    errands/asked/awaited.json      what the gate has stopped for, until it has gone on
    errands/done/KIND-HEX.json      what came back, written by the room that did it

Every file is written whole or not at all. What comes back is read as untrusted: of bounded size, an ordinary file, of
the exact schema, for this very errand. Whatever it is otherwise is `Unmeasured`, with the reason and the remedy.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from quantguard.core.errand import MOST_ITEMS, Answered, Errand, ErrandKind, ErrandOutcome
from quantguard.core.errors import EvidenceError
from quantguard.core.measurement import Unmeasured
from quantguard.evidence.records import digest_of, read_record, to_plain, write_record

T = TypeVar("T")

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_PROBLEM: Final = 1000  # characters that are told of one


@dataclass(frozen=True, slots=True)
class Awaited:
    """What the gate has stopped for."""

    errands: tuple[str, ...]  # digests, each once; also those of an earlier stop of the same run
    kinds: tuple[ErrandKind, ...]  # whose stages have to run now


@dataclass(frozen=True, slots=True)
class Errands:
    """The directory of errands."""

    root: Path

    @property
    def asked(self) -> Path:
        return self.root / "asked"

    @property
    def done(self) -> Path:
        return self.root / "done"

    def ask(self, errand: Errand) -> str:
        """Leave what is asked; its digest.

        Raises:
            EvidenceError: it cannot be written, or it asks more than 100,000 questions.
        """
        if len(errand.items) > MOST_ITEMS:
            raise EvidenceError(f"an errand of {len(errand.items)} questions", remedy="use fewer probes")
        digest = errand_digest(errand)
        write_record(self._asked(errand.kind, digest), "errand", Errand, errand, inputs=digest)
        return digest

    def errand(self, digest: str) -> Errand | None:
        """What was asked under this digest; None where it is gone or is something else."""
        for kind in ErrandKind if _DIGEST.fullmatch(digest) else ():
            found = _read(self._asked(kind, digest), "errand", Errand)
            if isinstance(found, Errand) and errand_digest(found) == digest:
                return found
        return None

    def open(self, kind: ErrandKind) -> tuple[tuple[str, Errand], ...]:
        """What is asked of this kind and not done, with its digest.

        Raises:
            EvidenceError: a file among them is not an errand.
        """
        paths = sorted(self.asked.glob(f"{kind.value}-*.json")) if self.asked.is_dir() else []
        found: list[tuple[str, Errand]] = []
        for path in paths:
            digest = "sha256:" + path.stem.removeprefix(f"{kind.value}-")
            errand = self.errand(digest)
            if errand is None:
                raise EvidenceError("this is not an errand", path=path, remedy="run the stage assess again")
            if isinstance(self.answered(digest), Unmeasured):
                found.append((digest, errand))
        return tuple(found)

    def leave(self, errand: Errand, outcome: ErrandOutcome) -> None:
        """Write what came back.

        Raises:
            EvidenceError: it cannot be written.
        """
        path = self.done / self._asked(errand.kind, outcome.errand).name
        write_record(path, "errand-outcome", ErrandOutcome, outcome, inputs=outcome.errand)

    def answered(self, digest: str) -> Answered | Unmeasured:
        """What came back under this digest, where it fits what was asked; else why nothing can be concluded."""
        errand = self.errand(digest)
        if errand is None:
            return Unmeasured("what was to be asked is gone (run again: it is measured anew)", errand=digest)
        outcome = _read(self.done / self._asked(errand.kind, digest).name, "errand-outcome", ErrandOutcome)
        again = f"run --stage {errand.kind.value}, then --stage assess"
        if outcome is None:
            return Unmeasured(f"the {errand.kind.value} left no answer ({again})", errand=digest)
        problem = outcome if isinstance(outcome, str) else outcome.misfit(errand, digest)
        if problem or isinstance(outcome, str):
            return Unmeasured(f"the answer of the {errand.kind.value} is unusable: {problem} ({again})", errand=digest)
        if outcome.problem:
            return Unmeasured(outcome.problem[:_MOST_PROBLEM], errand=digest)
        return Answered(errand, outcome.replies)

    @property
    def _awaited(self) -> Path:
        return self.asked / "awaited.json"

    def awaited(self) -> Awaited | None:
        """What the gate stopped for and has not gone on from; None where it did not."""
        found = _read(self._awaited, "awaited", Awaited)
        return found if isinstance(found, Awaited) else None

    def await_(self, digests: Iterable[str]) -> Awaited:
        """Stop for these errands: what was awaited before stays so, and what is not awaited is no longer asked.

        Raises:
            EvidenceError: it cannot be written.
        """
        before, new = self.awaited(), tuple(digests)
        kept = tuple(dict.fromkeys((*(before.errands if before is not None else ()), *new)))
        errands = [errand for digest in new if (errand := self.errand(digest)) is not None]
        kinds = tuple(kind for kind in ErrandKind if any(errand.kind is kind for errand in errands))
        names = {self._asked(kind, digest).name for kind in ErrandKind for digest in kept}
        for path in self.asked.glob("*-*.json"):
            if path.name not in names:
                path.unlink()
        awaited = Awaited(kept, kinds)
        write_record(self._awaited, "awaited", Awaited, awaited, inputs=digest_of(list(kept)))
        return awaited

    def forget_awaited(self) -> None:
        """A run begins, or is over."""
        self._awaited.unlink(missing_ok=True)

    def _asked(self, kind: ErrandKind, digest: str) -> Path:
        return self.asked / f"{kind.value}-{digest.removeprefix('sha256:')}.json"


def errand_digest(errand: Errand) -> str:
    """`sha256:HEX` of what is asked."""
    return digest_of(to_plain(Errand, errand))


def _read(path: Path, schema: str, kind: type[T]) -> T | str | None:
    """The body of a record; why it cannot be read; None where there is none. Nothing but an ordinary file is opened."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "it is not an ordinary file"
        return read_record(path, schema, kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: a name that no file can have
        return f"it cannot be read: {type(error).__name__}"
    except EvidenceError as error:
        return error.message[:_MOST_PROBLEM]
