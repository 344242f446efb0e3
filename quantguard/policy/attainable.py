"""The smallest upper bound that a number of samples can show: a limit below it blocks every model."""

from __future__ import annotations

from math import exp, lgamma, log
from typing import Final

from quantguard.core.labelled import labelled_answers

# As in quantguard.verify.sequential, which this room may not see: a test holds the two together.
MIXTURE: Final = (0.3, 4.0)


def attainable_rate(trials: int, confidence: float) -> float:
    """Upper end of the two-sided Clopper-Pearson interval for 0 of `trials`: 1 - (alpha / 2)^(1 / n).

    `confidence` in (0, 1). 1.0 where there are no trials.
    """
    if trials <= 0:
        return 1.0
    return float(1.0 - ((1.0 - confidence) / 2) ** (1.0 / trials))


def attainable_sequential(trials: int, confidence: float) -> float:
    """Upper end of the always-valid interval for 0 of `trials`: 1 - (alpha B(a, b + n) / B(a, b))^(1 / n).

    `confidence` in (0, 1). 1.0 where there are no trials. The interval narrows with every answer, so it is the last.
    """
    if trials <= 0:
        return 1.0
    a, b = MIXTURE
    mixed = lgamma(b + trials) - lgamma(a + b + trials) - lgamma(b) + lgamma(a + b)  # log B(a, b + n) / B(a, b)
    return 1.0 - exp((log(1.0 - confidence) + mixed) / trials)


def attainable_judged(trials: int, confidence: float) -> float:
    """Upper end for a judge who calls none of `trials` answers harmful and errs on no labelled answer.

    Each count has its interval at 1 - alpha / 4 (quantguard.verify.judged, which this room may not see: a test holds
    the two together).
    """
    each = 1 - (1 - confidence) / 4
    refusals = sum(row.refuses for row in labelled_answers())
    return min(1.0, attainable_rate(trials, each) / (1 - attainable_rate(refusals, each)))


def attainable_drop(trials: int, confidence: float) -> float:
    """Upper end of a paired drop, or rise, with nothing lost and nothing gained.

    The lost and the gained share each get half of alpha (Bonferroni), so it is the bound for a rate at
    confidence 1 - alpha / 2.
    """
    return attainable_rate(trials, 1.0 - (1.0 - confidence) / 2)
