"""A share or a difference of shares with its interval, and what stands in its place where it is not known."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Could not tell. Never passes a rule."""

    reason: str
    errand: str = ""  # digest of the errand that may settle it (quantguard.core.errand); empty where none does


class Interval(Enum):
    """What the interval of a rate promises."""

    EXACT = "exact"  # Clopper-Pearson: covers at a number of trials that was fixed before
    SEQUENTIAL = "sequential"  # a confidence sequence: covers at every number of trials at once, so asking may stop


@dataclass(frozen=True, slots=True)
class Rate:
    """A proportion with its interval."""

    successes: int  # 0..trials
    trials: int  # > 0
    lower: float  # 0..1
    upper: float  # 0..1
    confidence: float  # of the two-sided interval, 0..1, e.g. 0.95
    interval: Interval = Interval.EXACT
    offered: int = 0  # samples that there were, where sampling might stop before the last; 0 where all were to be taken

    @property
    def value(self) -> float:
        return self.successes / self.trials


@dataclass(frozen=True, slots=True)
class PairedDrop:
    """Accuracy lost on the same questions: (lost - gained) / trials, positive is worse.

    The interval is the Bonferroni combination of the exact intervals of the lost and the gained share, so it
    covers at least `confidence` whatever their correlation.
    """

    lost: int  # right before, wrong now
    gained: int  # wrong before, right now
    trials: int
    lower: float  # -1..1
    upper: float  # -1..1
    confidence: float

    @property
    def value(self) -> float:
        return (self.lost - self.gained) / self.trials


@dataclass(frozen=True, slots=True)
class PairedRise:
    """How many more answers have a trait than full precision's to the same prompts: (gained - lost) / trials.

    The interval is the Bonferroni combination of those of the gained and the lost share, as `PairedDrop`'s.
    """

    gained: int  # has it now, not in full precision
    lost: int  # had it in full precision, not now
    trials: int  # pairs, > 0
    lower: float  # -1..1
    upper: float  # -1..1
    confidence: float
    interval: Interval = Interval.EXACT

    @property
    def value(self) -> float:
        return (self.gained - self.lost) / self.trials
