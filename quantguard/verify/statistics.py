"""Exact intervals. Sources: Clopper and Pearson, Biometrika 1934; scipy.stats.binomtest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scipy.stats import binom, binomtest

from quantguard.core.measurement import PairedDrop, PairedRise, Rate

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
    lower, upper = _difference(lost, gained, len(pairs), confidence)
    return PairedDrop(lost, gained, len(pairs), lower, upper, confidence)


def paired_rise(gained: int, lost: int, trials: int, confidence: float) -> PairedRise:
    """The rise of a trait over `trials` pairs, with the interval of `paired_drop`.

    Raises:
        ValueError: trials < 1, counts outside 0..trials, or confidence outside 0..1.
    """
    if trials < 1 or min(gained, lost) < 0 or gained + lost > trials or not 0 < confidence < 1:
        raise ValueError(f"no rise of {gained} gained and {lost} lost in {trials} at confidence {confidence}")
    lower, upper = _difference(gained, lost, trials, confidence)
    return PairedRise(gained, lost, trials, lower, upper, confidence)


def sign_test(gained: int, lost: int) -> float:
    """Probability of so many gains or more where each of the pairs that differ is as likely a gain as a loss.

    McNemar's exact test (Psychometrika 12, 1947), one-sided, in (0, 1].
    """
    return float(binom.sf(gained - 1, gained + lost, 0.5))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Each p-value corrected for all of them (Holm, Scandinavian Journal of Statistics 1979), in the order given.

    Whatever their dependence, that any true null hypothesis has a corrected one at or below a level has that
    probability at most.
    """
    order = sorted(range(len(p_values)), key=lambda row: p_values[row])
    corrected, largest = [1.0] * len(p_values), 0.0
    for place, row in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[row]))
        corrected[row] = largest
    return tuple(corrected)


def _difference(more: int, less: int, trials: int, confidence: float) -> tuple[float, float]:
    """The interval of the share `more` less the share `less`."""
    each = 1 - (1 - confidence) / 2
    more_lower, more_upper = _interval(more, trials, each)
    less_lower, less_upper = _interval(less, trials, each)
    return more_lower - less_upper, more_upper - less_lower


def _interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    interval = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="exact")
    return float(interval.low), float(interval.high)
