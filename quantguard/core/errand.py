"""Errands: what the sealed room needs done where weights are not, and gets back as words of a closed list.

The room that opens weights has no network and no credential (docs/decisions/0009-three-containers.md). What it cannot
do itself it writes down as an errand; a room of another kind, which sees no weights, does it; and a pure function
settles the measurements with what came back, so that nothing is measured twice (docs/decisions/0018-errands.md). The
files are those of `quantguard.evidence.errands`.

To add a kind:
    1. here: a member of `ErrandKind` and its `words`;
    2. in verify: build an `Errand`, give it to `Asking.outbox`, and put `Unmeasured(reason, errand=DIGEST)` where its
       figure belongs in the measurements (`verify/judging.py` does so for the judge);
    3. in `verify/settle.py`: one line that replaces such a figure by what the replies show;
    4. a function that does the errand, called for its stage in `cli/gate.py` (the gate starts every stage that has the
       name of a kind that is awaited) and in `cli/errands.py` (the same for `quantguard verify`);
    5. in `action/rooms.py`: the container of that stage, in ERRANDS and `make_room`.
Gate, resumption, validation and fuzzing of what comes back need nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Final, assert_never

from quantguard.core.measurement import Unmeasured

MOST_ITEMS: Final = 100_000
MOST_NOTE: Final = 500  # characters


class ErrandKind(Enum):
    """What another room can do. The value is also the name of its stage."""

    JUDGE = "judge"  # ask a language model behind a network address
    EXECUTE = "execute"  # run generated programs against tests, in a sealed container of their own

    @property
    def words(self) -> frozenset[str]:
        """Every word that a reply may be."""
        match self:
            case ErrandKind.JUDGE:
                return frozenset({"yes", "no", "unreadable"})
            case ErrandKind.EXECUTE:
                return frozenset({"passed", "failed", "timeout", "broken"})
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class Errand:
    """What is asked. It names no address and holds no secret: what opens weights must not choose who is asked."""

    kind: ErrandKind
    about: str  # what is measured, in our words, e.g. "over_refusal nf4"
    settings: tuple[tuple[str, str], ...]  # (name, value) sorted: what it must be done with
    items: tuple[tuple[str, ...], ...]  # the texts of each question, untrusted; at most MOST_ITEMS


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one item."""

    word: str  # one of the kind's words
    note: str = ""  # at most MOST_NOTE characters; untrusted text


@dataclass(frozen=True, slots=True)
class ErrandOutcome:
    """What came back: a reply for each item in their order, or a problem and none."""

    errand: str  # sha256:HEX of what was asked
    replies: tuple[Reply, ...]
    problem: str = ""  # why it could not be done, with what to do; it is tried again in the next run

    def misfit(self, errand: Errand, digest: str) -> str:
        """Why this cannot be what came back for `errand`, whose digest is `digest`; empty where it can."""
        if self.errand != digest:
            return "it answers another errand"
        if len(self.replies) != (0 if self.problem else len(errand.items)):
            return f"{len(self.replies)} replies to {len(errand.items)} questions"
        if any(reply.word not in errand.kind.words or len(reply.note) > MOST_NOTE for reply in self.replies):
            return "a reply that is none of the words asked for, or a note that is too long"
        return ""


@dataclass(frozen=True, slots=True)
class Answered:
    """An errand and its replies, which fit it."""

    errand: Errand
    replies: tuple[Reply, ...]


Answers = Mapping[str, Answered | Unmeasured]
"""What came back, by the digest of what was asked; Unmeasured says why nothing did."""


def pending(value: object) -> tuple[str, ...]:
    """Digests of the errands that any figure inside `value` (measurements, say) awaits, each once, in order."""
    return tuple(dict.fromkeys(_pending(value)))


def _pending(value: object) -> Iterator[str]:
    if isinstance(value, Unmeasured):
        yield from filter(None, [value.errand])
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _pending(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _pending(item)
