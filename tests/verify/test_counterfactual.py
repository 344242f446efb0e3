"""Counterfactual rounding: the laws of its arithmetic on small tensors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for
from quantguard.verify.counterfactual import FLOOR, certainty, divergence, quotient, random_levels


def odd_weight(dtype: torch.dtype = torch.float32) -> Tensor:
    """(5, 112): rows that are no multiple of a block, a block of zeros, and weights that lie on levels."""
    weight = torch.randn(5, 112, generator=torch.Generator().manual_seed(1)) * 0.02
    weight.view(-1)[128:192] = 0.0
    weight.view(-1)[::7] = 0.0
    return weight.to(dtype)


def drawn(scheme: Scheme, weight: Tensor, seed: int) -> Tensor:
    return random_levels(grid_for(scheme), weight, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_rounding_at_random_is_the_weight_in_expectation(scheme: Scheme) -> None:
    grid, weight, draws = grid_for(scheme), odd_weight()[:4], 4000  # seven whole blocks
    again = weight.repeat(draws, 1)  # (draws x 4, 112)
    drawn_values = grid.value(again, random_levels(grid, again, torch.Generator().manual_seed(0)))
    mean = drawn_values.view(draws, *weight.shape).double().mean(0)
    low, high = (grid.value(weight, index).double() for index in grid.enclosing(weight))
    r = grid.position(weight).double()
    deviation = (high - low) * (r * (1 - r) / draws).sqrt()  # of a mean of so many draws
    seen = weight.half() if scheme is Scheme.INT8 else weight  # what the library rounds
    assert float(((mean - seen.double()).abs() / (deviation + 1e-8)).max()) < 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_only_the_two_enclosing_levels_are_drawn_and_what_decides_a_scale_stays(
    scheme: Scheme, dtype: torch.dtype
) -> None:
    grid, weight = grid_for(scheme), odd_weight(dtype)
    low, high = grid.enclosing(weight)
    seen_low, seen_high = torch.zeros_like(low, dtype=torch.bool), torch.zeros_like(low, dtype=torch.bool)
    on_level = (grid.position(weight) == 0) | (grid.position(weight) == 1)
    for seed in range(64):
        index = drawn(scheme, weight, seed)
        assert bool(((index == low) | (index == high)).all())
        kept = on_level | grid.pinned(weight)
        assert torch.equal(index[kept], grid.nearest(weight)[kept])
        seen_low |= index == low
        seen_high |= index == high
    assert bool((seen_low & seen_high)[(grid.position(weight) - 0.5).abs() < 0.3].all())


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_the_seed_decides_the_copy(scheme: Scheme) -> None:
    weight = odd_weight()
    assert torch.equal(drawn(scheme, weight, 3), drawn(scheme, weight, 3))
    assert not torch.equal(drawn(scheme, weight, 3), drawn(scheme, weight, 4))


def test_divergence_is_a_weighted_sum_over_the_tokens_of_each_text() -> None:
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    log_p, log_q = (t.log().expand(2, 3, 3) for t in (p, q))  # (texts, tokens, vocabulary)
    weight = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
    each = 0.5 * math.log(2) - 0.25 * math.log(2)
    assert divergence(log_p, log_q, weight).tolist() == pytest.approx([1.5 * each, 0.0], abs=1e-6)
    assert divergence(log_p, log_p, weight).tolist() == [0.0, 0.0]


def test_a_token_counts_by_how_certain_full_precision_is_and_padding_does_not() -> None:
    log_p = torch.tensor([[[0.95, 0.05], [0.6, 0.4], [0.05, 0.95], [0.01, 0.99]]]).log()
    mask = torch.tensor([[True, True, True, False]])
    assert certainty(log_p, mask)[0].tolist() == pytest.approx([0.95**4, 0.6**4, 0.95**4, 0])


TOKENS = torch.full((40,), 10.0)


def sums(nearest: float, random: float, copies: int = 8, texts: int = 40) -> Tensor:
    """Nats of each text: (1 + copies, texts), the copies and the texts unlike each other."""
    generator = torch.Generator().manual_seed(5)
    spread = torch.rand(1 + copies, texts, generator=generator, dtype=torch.float64) + 0.5
    spread = spread / spread.mean(1, keepdim=True)
    level = torch.tensor([nearest, *[random] * copies], dtype=torch.float64)[:, None]
    return 10 * level * spread


def test_the_quotient_is_of_the_means_and_its_interval_holds_it() -> None:
    found = quotient(sums(0.3, 0.01), TOKENS, confidence=0.95, seed=0)
    assert [found.nearest, found.random] == pytest.approx([0.3, 0.01])
    assert found.value == pytest.approx(30)
    assert 25 < found.lower < 30 < found.upper < 36
    wider = quotient(sums(0.3, 0.01), TOKENS, confidence=0.99, seed=0)
    assert wider.lower < found.lower
    assert found.upper < wider.upper
    few = quotient(sums(0.3, 0.01)[:, :5], TOKENS[:5], confidence=0.95, seed=0)
    assert few.upper - few.lower > found.upper - found.lower


def test_the_same_seed_gives_the_same_interval() -> None:
    first, again = (quotient(sums(0.3, 0.01), TOKENS, confidence=0.95, seed=7) for _ in range(2))
    assert first == again
    other = quotient(sums(0.3, 0.01), TOKENS, confidence=0.95, seed=8)
    assert other.value == first.value
    assert other.upper != first.upper


@pytest.mark.parametrize(("nearest", "random", "expected"), [(0.0, 0.0, 1.0), (FLOOR / 2, 0.0, 1.0), (0.01, 0.0, 1e4)])
def test_what_hardly_diverges_says_nothing(nearest: float, random: float, expected: float) -> None:
    found = quotient(sums(nearest, random), TOKENS, confidence=0.95, seed=0)
    assert found.value == pytest.approx(expected)
    assert 0 <= found.lower <= found.value <= found.upper < math.inf


def test_the_interval_covers_what_was_true() -> None:
    """Texts and copies drawn anew each time, their means known: the share of intervals that hold the quotient."""
    generator, held, trials = torch.Generator().manual_seed(11), 0, 200
    for _ in range(trials):
        texts = torch.rand(30, generator=generator, dtype=torch.float64) * 2  # mean 1, shared by all roundings
        copies = torch.rand(8, generator=generator, dtype=torch.float64) + 0.5  # mean 1
        noise = torch.rand(9, 30, generator=generator, dtype=torch.float64) + 0.5
        made = torch.cat([torch.full((1,), 3.0, dtype=torch.float64), copies])[:, None] * texts * noise
        found = quotient(made, torch.ones(30), confidence=0.9, seed=0)
        held += found.lower <= 3.0 <= found.upper
    assert held / trials > 0.85
