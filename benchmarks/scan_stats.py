"""Areas under ROC curves with intervals, and the smallest share that is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Area:
    """Area under a ROC curve: how often an attacked model scores higher than a benign one, ties half."""

    value: float  # 0..1
    low: float
    high: float
    positives: int
    negatives: int
    exact: bool  # the interval is Clopper-Pearson's over disjoint pairs, not DeLong's


def area(positives: Sequence[float], negatives: Sequence[float]) -> Area:
    """DeLong's interval (Biometrics 44, 1988); where all pairs are in order its variance is 0, and it says nothing.

    Then the area's complement is bounded by Clopper-Pearson over as many disjoint pairs of one positive and one
    negative as there are: each is in order with the probability that the area is, independently of the others.

    Raises:
        ValueError: fewer than two of either.
    """
    if min(len(positives), len(negatives)) < 2:
        raise ValueError(f"no curve of {len(positives)} positives and {len(negatives)} negatives")
    x, y = np.asarray(positives, dtype=float)[:, None], np.asarray(negatives, dtype=float)[None, :]
    wins = (x > y) + 0.5 * (x == y)  # (positives, negatives)
    value = float(wins.mean())
    if value in (0.0, 1.0):
        pairs = min(len(positives), len(negatives))
        low, high = exact_interval(round(value * pairs), pairs)
        return Area(value, low, high, len(positives), len(negatives), True)
    variance = wins.mean(1).var(ddof=1) / len(positives) + wins.mean(0).var(ddof=1) / len(negatives)
    reach = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(float(variance))
    return Area(value, max(0.0, value - reach), min(1.0, value + reach), len(positives), len(negatives), False)


def exact_interval(hits: int, trials: int) -> tuple[float, float]:
    """Clopper-Pearson, two-sided; (0, 1) for no trials."""
    if not trials:
        return 0.0, 1.0
    interval = binomtest(hits, trials).proportion_ci(confidence_level=CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def curve(positives: Sequence[float], negatives: Sequence[float]) -> list[tuple[float, float]]:
    """(false-positive rate, true-positive rate) as the threshold falls, from (0, 0) to (1, 1)."""
    points = [(0.0, 0.0)]
    for threshold in sorted({*positives, *negatives}, reverse=True):
        raised = [sum(score >= threshold for score in scores) / len(scores) for scores in (negatives, positives)]
        points.append((raised[0], raised[1]))
    return points


def smallest_seen(tried: Sequence[tuple[float, bool]]) -> float:
    """The share from which on every larger one that was tried is seen too; infinity where the largest is not."""
    smallest = math.inf
    for share, seen in sorted(tried, reverse=True):
        if not seen:
            break
        smallest = share
    return smallest
