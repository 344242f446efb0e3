"""The same weight of other blocks as the measure of one."""

from __future__ import annotations

import pytest
import torch

from quantguard.core.layer import POSITION_BINS, PositionHistogram
from quantguard.scan.siblings import Member, displacement, misfit, odd_ones, role
from tests.scan.weights import generator

EXPECTED = 2000.0  # weights in each bin


def histogram(seed: int, displaced: float = 0.0) -> PositionHistogram:
    """Chance counts; `displaced` of the weights moved from the outer bins to the next ones."""
    rates = torch.full((POSITION_BINS,), EXPECTED, dtype=torch.float64)
    moved = displaced * EXPECTED * POSITION_BINS / 2
    for outer, inner in ((0, 1), (-1, -2)):
        rates[outer] -= moved
        rates[inner] += moved
    observed = torch.poisson(rates.clamp(min=0), generator=generator(seed))
    return PositionHistogram(tuple(int(v) for v in observed), (EXPECTED,) * POSITION_BINS)


def family(displaced: dict[int, float], size: int = 8, layer: str = "mlp") -> list[Member]:
    return [Member(f"model.layers.{n}.{layer}.weight", "NF4", histogram(n, displaced.get(n, 0.0))) for n in range(size)]


def test_one_of_eight_with_a_hundredth_of_its_weights_displaced_is_named() -> None:
    (odd,) = odd_ones(family({5: 0.01}))
    assert odd.member.name == "model.layers.5.mlp.weight"
    assert odd.siblings == 7
    assert odd.displaced == pytest.approx(0.01, abs=0.004)
    assert odd.apart >= 8


@pytest.mark.parametrize("displaced", [0.0, 0.01])
def test_where_all_are_alike_none_is_odd(displaced: float) -> None:
    """A displacement that all have is of their training, or is judged by itself."""
    assert odd_ones(family(dict.fromkeys(range(8), displaced))) == ()


@pytest.mark.parametrize(("size", "named"), [(1, 0), (2, 0), (3, 0), (4, 1)])
def test_fewer_than_four_are_no_family(size: int, named: int) -> None:
    assert len(odd_ones(family({0: 0.01}, size))) == named


def test_grids_and_places_in_the_block_are_families_of_their_own() -> None:
    mixed = [*family({}, 3, "mlp"), *family({0: 0.01}, 1, "attn")]
    assert odd_ones(mixed) == ()
    other = [Member(m.name, "FP4", m.histogram) for m in family({0: 0.01}, 1)]
    assert odd_ones([*family({}, 3), *other]) == ()


def test_numbers_of_blocks_and_experts_are_taken_out_of_a_name() -> None:
    assert role("model.layers.11.mlp.experts.3.w1.weight") == "model.layers.N.mlp.experts.N.w1.weight"
    assert role("h.0.c_fc1.weight") == "h.N.c_fc1.weight"


def test_chance_alone_is_a_misfit_of_one_and_no_displacement() -> None:
    assert misfit(histogram(1)) == pytest.approx(1.0, abs=0.5)
    assert displacement(histogram(1)) < 0.002
    assert displacement(histogram(1, 0.02)) == pytest.approx(0.02, abs=0.004)
    nothing = PositionHistogram((0,) * POSITION_BINS, (0.0,) * POSITION_BINS)
    assert (misfit(nothing), displacement(nothing)) == (0.0, 0.0)
