"""Counterfactual rounding: what rounding to nearest does to a model, beside rounding the same weights at random.

For texts x and a rounding Q of the weights W, the divergence D(Q) is the weighted mean over all tokens t of
    KL(p(. | x<=t; W) || p(. | x<=t; Q)),   with the weight   (max p(. | x<=t; W))^4:
where full precision is certain of what comes next, honest rounding hardly moves it, and a payload must.

Rounding at random goes up with the probability r of the weight's position between the two levels that enclose it, so
that it is W in expectation (stochastic rounding; Gupta et al., ICML 2015). Its variance, in units of the distance of
the levels, is r (1 - r) and never below the squared error min(r, 1 - r)^2 of rounding to nearest, and so
    D(nearest) / mean of D(random)
is below one for weights that know nothing of the grid. Roundings that were prepared work together, and are undone by
chance: there the quotient is high, under the scheme that they were prepared for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.grids.grid import Grid

_POWER: Final = 4  # measured best of 0, 2, 4, 8 and of thresholds: docs/decisions/0015-counterfactual.md
FLOOR: Final = 1e-6  # nats a token: what diverges less says nothing
_DRAWS: Final = 2000  # of the bootstrap


@dataclass(frozen=True, slots=True)
class Quotient:
    """D(nearest) / mean of D(random), and its interval."""

    value: float  # > 0
    lower: float
    upper: float
    nearest: float  # nats a token
    random: float  # nats a token, mean over the copies


def random_levels(grid: Grid, weight: Tensor, generator: torch.Generator) -> Tensor:
    """A level for each weight, one of the two that enclose it, the upper with the probability of its position.

    A weight on a level keeps it, and with it every scale.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, on the generator's device.

    Returns:
        int64, the shape of `weight`.
    """
    low, high = grid.enclosing(weight)
    drawn = torch.rand(weight.shape, generator=generator, device=weight.device)  # in [0, 1)
    return torch.where(drawn < grid.position(weight), high, low)


def certainty(log_p: Tensor, mask: Tensor) -> Tensor:
    """What each token counts: float32 (texts, tokens), 0..1; 1 where full precision knows what comes next.

    Args:
        log_p: (texts, tokens, vocabulary), log-probabilities.
        mask: bool (texts, tokens), True for text.
    """
    return (log_p.amax(-1) * _POWER).exp() * mask


def divergence(log_p: Tensor, log_q: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of KL(p || q) over the tokens of each text, in nats: float64 (texts,).

    Args:
        log_p, log_q: (texts, tokens, vocabulary), log-probabilities, float32.
        weight: (texts, tokens).
    """
    each = (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)  # (texts, tokens)
    return (each * weight).double().sum(1)


def quotient(sums: Tensor, weights: Tensor, *, confidence: float, seed: int) -> Quotient:
    """The quotient with a percentile bootstrap interval over texts and copies.

    Texts are drawn with replacement, the same for nearest and random rounding (paired), and independently of them the
    copies (both at once: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007, where it is shown to be
    conservative). It assumes that the texts are independent of each other, and so are the copies, which they are by
    construction; it says nothing about other texts than of their kind. Divergences below `FLOOR` count as `FLOOR`.

    Args:
        sums: float64 (1 + copies, texts), nats; the first row is rounding to nearest.
        weights: (texts,), sum of the weights of each text's tokens.
    """
    copies, texts = sums.shape[0] - 1, sums.shape[1]
    generator = torch.Generator().manual_seed(seed)
    drawn = _counts(_DRAWS, texts, generator)  # (draws, texts)
    share = _counts(_DRAWS, copies, generator) / copies  # (draws, copies)
    least = FLOOR * (drawn @ weights.double())  # (draws,)
    totals = drawn @ sums.T  # (draws, 1 + copies)
    resampled = totals[:, 0].maximum(least) / (totals[:, 1:] * share).sum(1).maximum(least)
    tail = (1 - confidence) / 2
    lower, upper = resampled.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    means = sums.sum(1) / weights.sum()  # (1 + copies,)
    nearest, random = float(means[0]), float(means[1:].mean())
    value = max(nearest, FLOOR) / max(random, FLOOR)
    return Quotient(value, min(lower, value), max(upper, value), nearest, random)


def _counts(draws: int, of: int, generator: torch.Generator) -> Tensor:
    """How often each of `of` things is drawn in each of `draws` samples of that size: float64 (draws, of)."""
    index = torch.randint(of, (draws, of), generator=generator)
    zeros = torch.zeros(draws, of, dtype=torch.float64)
    return zeros.scatter_add_(1, index, torch.ones_like(index, dtype=torch.float64))
