"""The ground truth: one row a member, with how it was made and what it was seen to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from quantguard.canary.architecture import MARKER
from quantguard.canary.range.measure import Count
from quantguard.canary.range.members import Member, member_of
from quantguard.canary.range.recipes import Recipe, label, parents_of
from quantguard.core.errors import EvidenceError

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Rate:
    """A count with its exact (Clopper-Pearson) 95 % interval."""

    what: str
    scheme: str
    hits: int
    asked: int
    low: float  # 0..1
    high: float  # 0..1

    @property
    def share(self) -> float:
        return self.hits / self.asked


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    kind: str  # benign, attacked, variant, start
    variant: str
    builder: str  # the recipe's class
    arguments: str
    seed: int  # its own, or that of the nearest model it starts from
    parents: tuple[str, ...]  # names of what it starts from, nearest first
    scenario: str | None
    targets: tuple[str, ...]
    digest: str  # sha256:HEX of the model directory
    seconds: float  # to build, parents not included
    rates: tuple[Rate, ...]
    defended: tuple[tuple[str, tuple[Rate, ...]], ...] = ()  # by method of quantguard.harden, under the targets
    flipped: tuple[tuple[str, float], ...] = ()  # by method, mean share of the roundings that it changed

    def rate(self, what: str, scheme: str) -> Rate | None:
        return find(self.rates, what, scheme)


def find(rates: Iterable[Rate], what: str, scheme: str) -> Rate | None:
    return next((rate for rate in rates if (rate.what, rate.scheme) == (what, scheme)), None)


def rates_of(counts: Iterable[Count]) -> tuple[Rate, ...]:
    return tuple(_rate(count) for count in counts)


def row_of(member: Member, digest: str, seconds: float, counts: Sequence[Count]) -> Row:
    """A row without defences."""
    recipe = member.recipe
    return Row(
        name=member.name,
        kind=member.kind.value,
        variant=member.variant,
        builder=type(recipe).__name__,
        arguments=label(recipe),
        seed=_seed(recipe),
        parents=tuple(member_of(parent).name for parent in parents_of(recipe)),
        scenario=None if member.scenario is None else member.scenario.value,
        targets=member.targets,
        digest=digest,
        seconds=round(seconds, 1),
        rates=rates_of(counts),
    )


def _seed(recipe: Recipe) -> int:
    """Lines of recipes begin with a `Learned`, which has one; `prepare` and `hide` add fixed ones of their own."""
    own = getattr(recipe, "seed", None)
    return own if isinstance(own, int) else next((_seed(parent) for parent in parents_of(recipe)), 0)


def row_text(row: Row) -> str:
    """One JSON object on one line, with the marker that every canary has."""
    return json.dumps({MARKER: True, **asdict(row)}, sort_keys=True) + "\n"


def read_rows(path: Path) -> tuple[Row, ...]:
    """Rows from a JSONL file.

    Raises:
        EvidenceError: it cannot be read or is no manifest of the range.
    """
    try:
        rows = tuple(_row(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise EvidenceError(
            f"no manifest of the range: {error}", path=path, remedy="remove it, then make range"
        ) from error
    if not rows:
        raise EvidenceError("no manifest of the range: it is empty", path=path, remedy="remove it, then make range")
    return rows


def _row(raw: dict[str, Any]) -> Row:
    rates = tuple(Rate(**rate) for rate in raw["rates"])
    defended = tuple((method, tuple(Rate(**rate) for rate in found)) for method, found in raw["defended"])
    flipped = tuple((method, share) for method, share in raw["flipped"])
    plain = {k: v for k, v in raw.items() if k not in {"rates", "defended", "flipped", "targets", "parents", MARKER}}
    targets, parents = tuple(raw["targets"]), tuple(raw["parents"])
    return Row(**plain, targets=targets, parents=parents, rates=rates, defended=defended, flipped=flipped)


def _rate(count: Count) -> Rate:
    interval = binomtest(count.hits, count.asked).proportion_ci(confidence_level=CONFIDENCE, method="exact")
    return Rate(count.what, count.scheme, count.hits, count.asked, round(interval.low, 5), round(interval.high, 5))
