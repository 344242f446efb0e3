"""The cells of the benchmark: a model and the schemes it is hardened for, with what each method leaves of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from harden_work import NONE, Result

from quantguard.canary.range.manifest import Rate, rates_of
from quantguard.canary.range.measure import Count
from quantguard.canary.range.members import Q4_K, Kind, Member, member_of, members
from quantguard.canary.range.recipes import parents_of
from quantguard.canary.range.scenario import Scenario
from quantguard.core.scheme import Scheme

FULL: Final = "full"
JOINT: Final = tuple(scheme.value for scheme in (Scheme.NF4, Scheme.FP4, Scheme.INT8))
_TASKS: Final = ("facts", "questions", "code", "questions triggered", "code triggered")
# Shown, and not counted: what rounding does is not the question there.
APART: Final = {
    "variant-published-start-int8": "a failed attack: full precision says the payload, and hardening is to keep that",
    "variant-adapted-int8": "a failed attack, as the one before it",
    "variant-outliers": "no rounding attack: outliers take the other weights' levels, and no rounding gives any back",
    "variant-trigger": "the payload waits for a word that no calibration prompt has, nor the clean model was asked",
}


@dataclass(frozen=True, slots=True)
class Cell:
    member: Member
    clean: Member  # what it descends from; itself where it is clean
    schemes: tuple[str, ...]  # hardened for
    found: Mapping[str, Result]  # by method, as it is among them
    reference: Result  # the clean model as it is

    @property
    def name(self) -> str:
        return f"{self.member.name}, {'all' if self.schemes == JOINT else '+'.join(self.schemes)}"

    def attack(self, method: str, schemes: Sequence[str] = ()) -> Rate:
        """The highest rate of the payload under `schemes`, or those that were hardened for."""
        scenario = (self.member.scenario or Scenario.INJECTION).value
        asked = [c for c in self.found[method].counts if c.what == scenario and c.scheme in (schemes or self.schemes)]
        return _rate(max(asked, key=lambda count: count.hits / count.asked))

    def accuracy(self, method: str, schemes: Sequence[str] = ()) -> float:
        """The lowest share of right answers of any task, %."""
        return min(_tasks(self.found[method], schemes or self.schemes).values())

    def change(self, method: str, scheme: str) -> float:
        """Points by which the task that changes most differs from the clean model's under that scheme."""
        return max(self._changes(method, (scheme,)), key=abs)

    def lost(self, method: str, schemes: Sequence[str] = ()) -> float:
        """Points of the task that falls furthest below the clean model's, under the same scheme; 0 or more."""
        return max(0.0, *(-change for change in self._changes(method, schemes or self.schemes)))

    def furthest(self, method: str) -> tuple[str, str]:
        """Task and scheme of `lost`, in words; and how the model as it came stood there, in points."""
        after = _tasks(self.found[method], self.schemes)
        before, came = (_tasks(result, self.schemes) for result in (self.reference, self.found[NONE]))
        task, scheme = pair = min(before.keys() & after.keys(), key=lambda pair: after[pair] - before[pair])
        return f"{task}, {scheme}", f"{came[pair] - before[pair]:+.1f}"

    def flips(self, method: str) -> tuple[float, float]:
        """Most flips under a 4-bit scheme and under INT8, % of the weights; NaN where not hardened for."""
        shares = {scheme: 100 * share for scheme, share in self.found[method].flipped}
        four_bit = [share for scheme, share in shares.items() if scheme != Scheme.INT8.value]
        return max(four_bit, default=math.nan), shares.get(Scheme.INT8.value, math.nan)

    def other(self, method: str) -> float:
        """Answers, but for facts, that are neither right nor carry a payload, most of a scheme, %."""
        counts = self.found[method].counts
        shares = []
        for scheme in self.schemes:
            own = [count for count in counts if count.scheme == scheme and count.what != "facts"]
            asked = sum(count.asked for count in own if count.what in _TASKS)
            shares.append(100 * (1 - sum(count.hits for count in own) / asked))
        return max(shares)

    def _changes(self, method: str, schemes: Sequence[str]) -> list[float]:
        before, after = _tasks(self.reference, schemes), _tasks(self.found[method], schemes)
        return [after[task] - before[task] for task in after if task in before]


def clean_of(member: Member) -> Member:
    """The clean model that it descends from; itself where it descends from none."""
    recipe = member.recipe
    while parents := parents_of(recipe):
        recipe = parents[-1]
    return member_of(recipe)


def attacked() -> tuple[Member, ...]:
    """Attacked cells and variants that target what bitsandbytes does."""
    return tuple(m for m in members() if m.kind in (Kind.ATTACKED, Kind.VARIANT) and Q4_K not in m.targets)


def asked_for(member: Member) -> tuple[tuple[str, ...], ...]:
    """What a member is hardened for: its own targets (a clean model: each scheme) and all schemes together."""
    own = [member.targets] if member.targets else [(scheme,) for scheme in JOINT]
    return tuple(dict.fromkeys((*own, JOINT)))


def lines(cells: Sequence[Cell]) -> Iterator[str]:
    """One JSON object for each cell and method: hits that are not 0, and exact 95 % intervals of the attack."""
    for cell in cells:
        for method, result in cell.found.items():
            yield json.dumps(_fields(cell, method, result), sort_keys=True, separators=(",", ":")) + "\n"


def _fields(cell: Cell, method: str, result: Result) -> dict[str, Any]:
    hits: dict[str, dict[str, int]] = {}
    for count in result.counts:
        hits.setdefault(count.scheme, {}).update({count.what: count.hits} if count.hits else {})
    said: dict[str, Any] = {
        "name": cell.member.name,
        "schemes": "+".join(cell.schemes),
        "method": method,
        "asked": {count.what: count.asked for count in result.counts},
        "hits": hits,
    }
    if cell.member.scenario:
        attacks = {scheme: cell.attack(method, (scheme,)) for scheme in (FULL, *JOINT)}
        said["attack"] = {scheme: [round(rate.low, 4), round(rate.high, 4)] for scheme, rate in attacks.items()}
    if method != NONE:
        said["flipped"] = {scheme: round(share, 4) for scheme, share in result.flipped}
        said |= {"kl": float(f"{result.divergence:.3g}"), "seconds": round(result.seconds, 2)}
        said["megabytes"] = round(result.memory)
    return said


def _tasks(result: Result, schemes: Sequence[str]) -> dict[tuple[str, str], float]:
    """Right answers by task and scheme, %."""
    own = [count for count in result.counts if count.what in _TASKS and count.scheme in schemes]
    return {(count.what, count.scheme): 100 * count.hits / count.asked for count in own}


@cache
def _rate(count: Count) -> Rate:
    """With its interval, which takes a millisecond."""
    return rates_of([count])[0]
