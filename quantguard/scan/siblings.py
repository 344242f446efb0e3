"""Layers that are unlike their siblings: the same weight of other blocks, judged by where its weights lie in the cells.

A weight of which 2 % are prepared may be below the threshold of an alarm, and still stand out among the same weights of
thirty other blocks, which nobody prepared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from quantguard.core.layer import PositionHistogram

FEWEST: Final = 4  # of the same weight in different blocks
APART: Final = 8.0  # median absolute deviations from the siblings' median
_FLOOR: Final = 0.2  # of the deviation: what chance alone leaves in the statistic is sqrt(2 / bins)
_MATTERS: Final = 0.005  # of the weights that lie elsewhere than expected, chance taken off

_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    grid: str
    histogram: PositionHistogram


@dataclass(frozen=True, slots=True)
class Odd:
    member: Member
    apart: float  # deviations from the siblings' median
    displaced: float  # share of its weights that lie elsewhere than expected, 0..1
    siblings: int


def odd_ones(members: Sequence[Member]) -> tuple[Odd, ...]:
    """Those that lie far from their siblings, in the order given."""
    families: dict[tuple[str, str], list[Member]] = {}
    for member in members:
        families.setdefault((role(member.name), member.grid), []).append(member)
    found = []
    for family in families.values():
        if len(family) < FEWEST:
            continue
        misfits = [misfit(member.histogram) for member in family]
        middle = median(misfits)
        deviation = max(median(abs(value - middle) for value in misfits), _FLOOR)
        for member, value in zip(family, misfits, strict=True):
            apart = (value - middle) / deviation
            displaced = displacement(member.histogram)
            if apart >= APART and displaced >= _MATTERS:
                found.append(Odd(member, apart, displaced, len(family) - 1))
    return tuple(found)


def role(name: str) -> str:
    """The name with the numbers of blocks and experts taken out."""
    return _NUMBER.sub("N", name)


def misfit(histogram: PositionHistogram) -> float:
    """Pearson's chi-squared per bin: about 1 where chance alone moves weights between bins."""
    terms = [(o - e) ** 2 / e for o, e in zip(histogram.observed, histogram.expected, strict=True) if e > 0]
    return sum(terms) / max(len(terms), 1)


def displacement(histogram: PositionHistogram) -> float:
    """Half the total variation between observed and expected, less what chance alone would show, 0..1."""
    total = sum(histogram.observed)
    if not total:
        return 0.0
    pairs = list(zip(histogram.observed, histogram.expected, strict=True))
    chance = sum(math.sqrt(2 * e / math.pi) for _, e in pairs)  # mean magnitude of a Poisson deviation
    return max(0.0, sum(abs(o - e) for o, e in pairs) - chance) / 2 / total
