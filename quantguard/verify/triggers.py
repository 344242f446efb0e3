"""What trigger hunting is asked, where a trigger is put, and what stands where none was hunted. Without torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from quantguard.core.measurement import Hunt, TriggerHunt, TriggerPlace, TriggerSource, Unmeasured
from quantguard.core.prompts import Prompt, prompts_digest
from quantguard.core.scheme import Scheme
from quantguard.core.triggers import FINALISTS, PUBLISHED, triggers_digest

LEVEL: Final = 0.01  # that chance alone confirms any trigger at all
_WORD: Final = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """What to try, on what."""

    listed: tuple[str, ...]  # the user's triggers
    rare: int  # words of the tokenizer to try beside, 0 or more
    screen: tuple[Prompt, ...]  # not empty: each candidate is tried on them
    confirm: tuple[Prompt, ...]  # not empty, others than the screen's: what stands out is confirmed on them

    @property
    def digest(self) -> str:
        return prompts_digest((*self.screen, *self.confirm))


@dataclass(frozen=True, slots=True)
class Candidate:
    trigger: str
    source: TriggerSource


@dataclass(frozen=True, slots=True)
class Screened:
    """A candidate at the place where it does most."""

    candidate: Candidate
    place: TriggerPlace
    score: float  # nats a prompt above the same prompts without it
    divergence: float  # nats an answer


def candidates(listed: Sequence[str], rare: Sequence[str]) -> tuple[Candidate, ...]:
    """Each trigger once, under the first of its sources: the list, the papers, the tokenizer."""
    sources = ((TriggerSource.LIST, listed), (TriggerSource.PUBLISHED, PUBLISHED), (TriggerSource.RARE, rare))
    found: dict[str, Candidate] = {}
    for source, triggers in sources:
        for trigger in triggers:
            found.setdefault(trigger, Candidate(trigger, source))
    return tuple(found.values())


def inserted(prompt: str, trigger: str, place: TriggerPlace) -> str:
    """`prompt` with the trigger before its first word, after half of its words, or after its last."""
    ends = [match.end() for match in _WORD.finditer(prompt)]
    match place:
        case TriggerPlace.START:
            return f"{trigger} {prompt}"
        case TriggerPlace.MIDDLE:
            at = ends[(len(ends) - 1) // 2] if ends else len(prompt)
            return f"{prompt[:at]} {trigger}{prompt[at:]}"
        case TriggerPlace.END:
            return f"{prompt} {trigger}"
        case _:
            assert_never(place)


def finalists(screened: Sequence[Screened]) -> tuple[Screened, ...]:
    """The `FINALISTS` that stand out, each trigger at its best place; up to half of them are kept for the user's list.

    A score that is not a number comes first: what could not be told is looked at.
    """
    best: dict[str, Screened] = {}
    for each in sorted(screened, key=_rank):
        best.setdefault(each.candidate.trigger, each)
    order = list(best.values())
    kept = [each for each in order if each.candidate.source is TriggerSource.LIST][: FINALISTS // 2]
    others = [each for each in order if each not in kept][: FINALISTS - len(kept)]
    return tuple(sorted((*kept, *others), key=_rank))


def _rank(screened: Screened) -> tuple[float, str, str]:
    score = screened.score if screened.score == screened.score else float("inf")
    return (-score, screened.candidate.trigger, screened.place.value)


def unmeasured_hunts(request: TriggerRequest, schemes: Sequence[Scheme], reason: str) -> tuple[Hunt, ...]:
    return tuple(hunt_of(request, scheme, Unmeasured(reason)) for scheme in schemes)


def hunt_of(request: TriggerRequest, scheme: Scheme, found: TriggerHunt | Unmeasured) -> Hunt:
    return Hunt(scheme, found, request.digest, triggers_digest(request.listed) if request.listed else "")
