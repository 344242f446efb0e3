"""The rise of perplexity: what it is, and how often its interval holds the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from quantguard.core.measurement import Rise, TextLoss, Unmeasured
from quantguard.verify.rise import rise

TEXTS = 64
STREAMS = 2000
Drawn = tuple[NDArray[np.float64], NDArray[np.int64]]


def risen(before: TextLoss, after: TextLoss, *, confidence: float = 0.95, seed: int = 0) -> Rise:
    found = rise(before, after, confidence=confidence, seed=seed)
    assert isinstance(found, Rise), found
    return found


def lossy(nats: list[float], tokens: list[int]) -> TextLoss:
    return TextLoss(tuple(nats), tuple(tokens))


def test_a_tenth_more_perplexity_is_a_rise_of_a_tenth_whatever_the_lengths() -> None:
    tokens = [3, 50, 7, 21]
    before = lossy([2.0, 90.0, 7.0, 30.0], tokens)
    after = lossy([n + t * math.log(1.1) for n, t in zip(before.nats, tokens, strict=True)], tokens)
    found = risen(before, after)
    assert (found.value, found.lower, found.upper) == pytest.approx((0.1, 0.1, 0.1))
    assert after.perplexity / before.perplexity == pytest.approx(1.1)
    assert risen(after, before).value == pytest.approx(1 / 1.1 - 1)


def test_long_texts_count_by_their_tokens() -> None:
    tokens = [1000, 1, 1]
    found = risen(lossy([0.0, 5.0, 5.0], tokens), lossy([1000.0, 5.0, 5.0], tokens))
    assert found.value == pytest.approx(math.expm1(1000 / 1002))


def test_the_same_text_costs_the_same_and_nothing_is_uncertain() -> None:
    loss = lossy([1.0, 2.0, 3.5], [4, 4, 9])
    found = risen(loss, loss)
    assert (found.value, found.lower, found.upper) == (0.0, 0.0, 0.0)


def test_the_seed_draws_it_and_more_confidence_is_wider() -> None:
    generator = np.random.default_rng(1)
    lost, tokens = _skewed(generator)
    before, after = _pair(lost, tokens)
    assert risen(before, after) == risen(before, after)
    assert risen(before, after).upper != risen(before, after, seed=1).upper
    wide = risen(before, after, confidence=0.99)
    assert wide.lower < risen(before, after).lower < wide.value < risen(before, after).upper < wide.upper


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (lossy([1.0], [2]), lossy([1.0], [2]), "one text has no interval"),
        (lossy([1.0, 2.0], [2, 3]), lossy([1.0, 2.0], [3, 2]), "the reference read other texts"),
        (lossy([1.0, 2.0], [1, 1]), lossy([1e9, 2.0], [1, 1]), "differs too much"),
        (lossy([1.0, 2.0], [1, 1]), lossy([math.nan, 2.0], [1, 1]), "differs too much"),
    ],
)
def test_what_has_no_interval_is_unmeasured(before: TextLoss, after: TextLoss, said: str) -> None:
    found = rise(before, after, confidence=0.95, seed=0)
    assert isinstance(found, Unmeasured)
    assert said in found.reason


def _normal(generator: np.random.Generator) -> Drawn:
    tokens = generator.integers(8, 64, TEXTS)
    return generator.normal(0.05, 0.2, TEXTS) * tokens, tokens


def _skewed(generator: np.random.Generator) -> Drawn:
    """As rounding costs: most texts little, a few much."""
    tokens = generator.integers(8, 64, TEXTS)
    return generator.lognormal(-3.5, 1.0, TEXTS) * tokens, tokens


def _tenth(generator: np.random.Generator) -> Drawn:
    """One text in ten is spoilt, the others are nearly as before."""
    tokens = generator.integers(8, 64, TEXTS)
    spoilt = (generator.random(TEXTS) < 0.1) * generator.exponential(0.8, TEXTS)
    return (generator.normal(0.01, 0.02, TEXTS) + spoilt) * tokens, tokens


def _pair(lost: NDArray[np.float64], tokens: NDArray[np.int64]) -> tuple[TextLoss, TextLoss]:
    base = 3.0 * tokens
    counts = tuple(tokens.tolist())
    return TextLoss(tuple(base.tolist()), counts), TextLoss(tuple((base + lost).tolist()), counts)


@pytest.mark.parametrize(
    ("draw", "mean", "least"),
    # mean nats a token that the whole population loses; the share of streams whose interval must hold it
    [(_normal, 0.05, 0.935), (_skewed, math.exp(-3.5 + 0.5), 0.91), (_tenth, 0.09, 0.91)],
    ids=["normal", "skewed", "one in ten"],
)
def test_the_interval_holds_the_truth_about_as_often_as_it_says(
    draw: Callable[[np.random.Generator], Drawn], mean: float, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantguard.verify.rise._DRAWS", 400)  # of each of 2,000 streams
    generator = np.random.default_rng(0)
    held = above = 0
    for stream in range(STREAMS):
        found = risen(*_pair(*draw(generator)), seed=stream)
        held += found.lower <= math.expm1(mean) <= found.upper
        above += found.upper < math.expm1(mean)
    assert held / STREAMS >= least
    assert above / STREAMS <= 0.08  # it is the upper end that a policy compares
