"""Exact intervals. Sources: Clopper and Pearson, Biometrika 1934; scipy.stats.binomtest."""

from __future__ import annotations

from typing import Final

from scipy.stats import binomtest

from quantguard.core.measurement import PairedDrop, Rate

_RIGHT: Final = "1"
_WRONG: Final = "0"


def rate(successes: int, trials: int, confidence: float) -> Rate:
    """The share of successes with its exact two-sided Clopper-Pearson interval.

    Raises:
        ValueError: trials < 1, successes outside 0..trials, or confidence outside 0..1.
    """
    if trials < 1 or not 0 <= successes <= trials or not 0 < confidence < 1:
        raise ValueError(f"no rate of {successes} in {trials} at confidence {confidence}")
    lower, upper = _interval(successes, trials, confidence)
    return Rate(successes, trials, lower, upper, confidence)


def paired_drop(before: str, after: str, confidence: float) -> PairedDrop:
    """Accuracy lost between two runs over the same questions, one character (`1` right, `0` wrong) each.

    The interval of lost - gained combines the exact intervals of the two shares, each at 1 - alpha / 2 (Bonferroni):
    it covers at least `confidence` whatever their correlation.

    Raises:
        ValueError: empty, of different lengths, or with other characters.
    """
    if not before or len(before) != len(after) or not set(before + after) <= {_RIGHT, _WRONG}:
        raise ValueError(f"{len(before)} and {len(after)} outcomes cannot be paired")
    pairs = list(zip(before, after, strict=True))
    lost, gained = pairs.count((_RIGHT, _WRONG)), pairs.count((_WRONG, _RIGHT))
    each = 1 - (1 - confidence) / 2
    lost_lower, lost_upper = _interval(lost, len(pairs), each)
    gained_lower, gained_upper = _interval(gained, len(pairs), each)
    return PairedDrop(lost, gained, len(pairs), lost_lower - gained_upper, lost_upper - gained_lower, confidence)


def _interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    interval = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="exact")
    return float(interval.low), float(interval.high)
