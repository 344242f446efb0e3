"""By how much perplexity rose between two runs over the same texts, with an interval over texts.

With d_i the nats that text i costs more than before and n_i its tokens, the logarithm of the quotient of the two
perplexities is r = sum d_i / sum n_i. Tokens of one text depend on each other, so texts are what is drawn: the standard
error is that of a ratio of means over texts (Cochran, Sampling Techniques, 1977, section 6.3), and the interval is the
bootstrap-t (Efron 1981; Hall, Annals of Statistics 1988), which follows the skew that such differences have: a few
texts lose most. What it was chosen over, and how often each covers, is in docs/usefulness.md.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from quantguard.core.measurement import Rise, TextLoss, Unmeasured

_DRAWS: Final = 2000
_DRAWN_AT_ONCE: Final = 2**22  # texts
_LARGEST: Final = 700.0  # exp of more is no float


def rise(before: TextLoss, after: TextLoss, *, confidence: float, seed: int) -> Rise | Unmeasured:
    """The relative rise of perplexity from `before` to `after`, paired text by text.

    It assumes that the texts are independent of each other and says nothing about other texts than of their kind: what
    happens in a few of a hundred texts, none of which was drawn, no interval can hold. The seed draws the bootstrap.
    """
    if before.tokens != after.tokens:
        return Unmeasured("the reference read other texts")
    if len(after.tokens) < 2:
        return Unmeasured("one text has no interval")
    tokens = np.array(after.tokens, dtype=np.float64)  # (texts,)
    lost = np.array(after.nats) - np.array(before.nats)  # (texts,)
    ratio, error = _ratio(np.ones((1, len(tokens))), lost, tokens)
    drawn = _studentised(lost, tokens, float(ratio[0]), seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    ends = [float(ratio[0]), float(ratio[0] - high * error[0]), float(ratio[0] - low * error[0])]
    if not max(ends) < _LARGEST:  # NaN too
        return Unmeasured(f"perplexity differs too much between {len(tokens)} texts for an interval")
    value, lower, upper = (math.expm1(end) for end in ends)
    return Rise(value, min(lower, value), max(upper, value), confidence)


def _studentised(
    lost: NDArray[np.float64], tokens: NDArray[np.float64], ratio: float, seed: int
) -> NDArray[np.float64]:
    """How many of its own standard errors each resampled ratio lies above `ratio`: (draws,); 0 where it has none."""
    generator, texts = np.random.default_rng(seed), len(tokens)
    rows = max(1, _DRAWN_AT_ONCE // texts)
    found = []
    for start in range(0, _DRAWS, rows):
        counts = generator.multinomial(texts, np.full(texts, 1 / texts), size=min(rows, _DRAWS - start))
        again, error = _ratio(counts.astype(np.float64), lost, tokens)
        found.append(np.divide(again - ratio, error, out=np.zeros_like(again), where=error > 0))
    return np.concatenate(found)


def _ratio(
    counts: NDArray[np.float64], lost: NDArray[np.float64], tokens: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ratio of each sample, and its standard error: both (samples,).

    Args:
        counts: (samples, texts), how often each text is in each sample.
    """
    texts = len(tokens)
    total = counts @ tokens
    ratio = counts @ lost / total
    squares = counts @ lost**2 - 2 * ratio * (counts @ (lost * tokens)) + ratio**2 * (counts @ tokens**2)
    return ratio, np.sqrt(texts / (texts - 1) * squares.clip(min=0)) / total
