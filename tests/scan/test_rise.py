"""Peaks and cusps between the boundary and the level, on positions drawn by hand."""

from __future__ import annotations

from math import isfinite

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantguard.scan.rise import NOTHING, find_rise, trimmed
from tests.scan.weights import generator

HALVES, POSITIONS = 30, 256
LEVEL = 100.0  # weights expected at each position of each half-cell
THRESHOLD = 6.0  # standard deviations: what SIGNIFICANCE is, about, corrected over a small model
PLACES = torch.arange(POSITIONS, dtype=torch.float64)


def drawn(profile: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Chance counts of a profile, relative to a flat expectation: two (HALVES, POSITIONS)."""
    rates = LEVEL * profile.double().expand(HALVES, POSITIONS)
    return torch.poisson(rates, generator=generator(seed)), torch.full_like(rates, LEVEL)


def piled(begin: int, width: int, share: float) -> Tensor:
    """`share` of all weights taken from everywhere and put on `width` positions."""
    profile = torch.full((POSITIONS,), 1 - share, dtype=torch.float64)
    profile[begin : begin + width] += share * POSITIONS / width
    return profile


@pytest.mark.parametrize("width", [1, 4, 16, 32])
@pytest.mark.parametrize("begin", [1, 5, 50, 120, 199])
def test_a_pile_is_found_where_it_is_with_its_share(begin: int, width: int) -> None:
    rise = find_rise(*drawn(piled(begin, width, 0.05)))
    assert rise.z > 2 * THRESHOLD
    assert rise.trimmed > THRESHOLD
    assert 0.03 < rise.share < 0.06
    assert rise.begin < (begin + width) / 512
    assert rise.end > begin / 512
    assert abs((rise.begin + rise.end) / 2 - (begin + width / 2) / 512) <= max(1, width / 2) / 512


def test_a_pile_of_a_hundredth_is_found_on_a_single_position() -> None:
    rise = find_rise(*drawn(piled(20, 1, 0.01)))
    assert (rise.begin, rise.end) == (20 / 512, 21 / 512)
    assert rise.ratio == pytest.approx(1 + 0.01 * POSITIONS, rel=0.1)


@pytest.mark.parametrize("scale", [2, 8])
def test_coarser_positions_are_searched_as_well(scale: int) -> None:
    """INT8 has 128 positions in half a cell."""
    observed, expected = drawn(piled(40, 8, 0.05))
    folded = [part.view(HALVES, -1, scale).sum(2) for part in (observed, expected)]
    rise = find_rise(folded[0], folded[1])
    assert rise.z > THRESHOLD
    assert rise.begin <= 44 / 512 <= rise.end


@pytest.mark.parametrize("strip", [8, 16, 32])
def test_a_strip_at_the_boundary_that_was_emptied_into_what_lies_behind_is_found(strip: int) -> None:
    """Each weight draws its own margin within the strip: the nearer to the boundary, the emptier."""
    profile = torch.ones(POSITIONS, dtype=torch.float64)
    profile[:strip] = PLACES[:strip] / strip
    profile[strip : 2 * strip] += 1 - PLACES[:strip] / strip
    rise = find_rise(*drawn(profile))
    assert rise.z > THRESHOLD
    assert rise.depleted < 0.8
    assert rise.ratio > 1.4


@pytest.mark.parametrize("strip", [8, 16, 24])
def test_an_empty_strip_and_no_pile_behind_it_is_a_cusp(strip: int) -> None:
    profile = torch.ones(POSITIONS, dtype=torch.float64)
    profile[:strip] = 0.1
    rise = find_rise(*drawn(profile))
    assert rise.z > THRESHOLD
    assert rise.begin == pytest.approx(strip / 512, abs=4 / 512)
    assert rise.depleted == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("depth", [0.3, 1.0])
def test_a_density_that_falls_from_the_boundary_is_no_rise(depth: float) -> None:
    """Training with the quantizer in the loop crowds weights about the boundaries."""
    rise = find_rise(*drawn(1 + depth * torch.exp(-PLACES / 30)))
    assert rise.z < THRESHOLD


@pytest.mark.parametrize("width", [1, 10, 40])
def test_a_peak_on_the_level_is_no_rise(width: int) -> None:
    """A dequantized model that was changed a little is highest on its levels."""
    rise = find_rise(*drawn(1 + 6 * torch.exp(-(((POSITIONS - PLACES) / width) ** 2) / 2)))
    assert rise.z < THRESHOLD


def test_a_slope_is_no_rise() -> None:
    for slope in (-0.3, 0.3):
        assert find_rise(*drawn(1 + slope * (PLACES / POSITIONS - 0.5))).z < THRESHOLD


def test_chance_alone_is_no_rise() -> None:
    """2,000 draws of between 3 and 3,000 weights a half-cell: not one beyond the threshold."""
    beyond = 0
    for seed in range(2000):
        rates = torch.full((8, POSITIONS), float(10 ** (seed % 4 - 2)), dtype=torch.float64)
        rise = find_rise(torch.poisson(rates, generator=generator(seed)), rates)
        beyond += rise.z >= THRESHOLD and rise.trimmed >= 3
    assert beyond == 0


def test_what_a_single_half_cell_carries_is_trimmed_away() -> None:
    observed, expected = drawn(torch.ones(POSITIONS, dtype=torch.float64))
    observed[7, 60:64] += 5000
    rise = find_rise(observed, expected)
    assert rise.z > THRESHOLD
    assert rise.trimmed < 3
    spread = observed.clone()
    spread[7, 60:64] -= 5000
    spread[:, 60:64] += 5000 / HALVES
    assert find_rise(spread, expected).trimmed > THRESHOLD


@pytest.mark.parametrize("halves", [1, 2, 7])
def test_of_few_half_cells_one_is_trimmed(halves: int) -> None:
    observed = torch.full((halves, POSITIONS), LEVEL, dtype=torch.float64)
    expected = observed.clone()
    observed[0, 60:64] += 5000
    assert trimmed(observed, expected, slice(56, 60), slice(60, 64)) < 1


def test_no_window_is_wider_than_asked_for() -> None:
    observed, expected = drawn(piled(50, 32, 0.2))
    assert find_rise(observed, expected).end - find_rise(observed, expected).begin > 8 / 512
    narrow = find_rise(observed, expected, widest=4)
    assert narrow.end - narrow.begin <= 4 / 512


def test_nothing_gives_nothing() -> None:
    zeros = torch.zeros(HALVES, POSITIONS, dtype=torch.float64)
    assert find_rise(zeros, zeros + 1) == NOTHING


@given(
    seed=st.integers(0, 2**31),
    positions=st.sampled_from([32, 128, 256]),
    rate=st.sampled_from([0.0, 0.01, 1.0, 1e3, 1e7]),
    power=st.sampled_from([0, 1, 4]),
    empty=st.floats(0, 1),
)
def test_any_counts_give_a_share_between_none_and_all(
    seed: int, positions: int, rate: float, power: int, empty: float
) -> None:
    drawing = generator(seed)
    shape = (1 + seed % 6, positions)
    expected = torch.rand(shape, generator=drawing, dtype=torch.float64) * rate
    observed = torch.poisson(expected, generator=drawing) * torch.rand(shape, generator=drawing) ** power
    expected[torch.rand(shape, generator=drawing) < empty] = 0
    rise = find_rise(observed, expected + 1e-12)
    assert 0 <= rise.share <= 1
    assert 0 <= rise.begin <= rise.end <= 0.5
    assert rise.z >= 0
    assert all(isfinite(value) for value in (rise.z, rise.ratio, rise.depleted, rise.trimmed))
