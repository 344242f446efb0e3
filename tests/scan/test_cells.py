"""Half-cells cut out of the fine axes."""

from __future__ import annotations

import pytest
import torch

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for
from quantguard.scan.cells import Cells, axis_of, cells_of
from quantguard.scan.density import REACH, fit_density, running_sum
from quantguard.scan.examine import ON_GRID
from quantguard.scan.histogram import FINE, HALF, lattice_of
from tests.scan.weights import DTYPES, counts_of, dequantized, honest

BITS = (0, 13, 16)
EVERY = [(scheme, bits) for scheme in ROUNDINGS for bits in BITS]


def middle(cells: Cells) -> torch.Tensor:
    """Of each slot on the axis, NaN for one without a fine bin: (halves, positions)."""
    u = (cells.low + cells.high).double() / 2 / HALF - 1
    return torch.where(cells.fine > 0, u, torch.nan)


@pytest.mark.parametrize(("scheme", "bits"), EVERY)
def test_a_fine_bin_lies_in_one_slot_at_most(scheme: Scheme, bits: int) -> None:
    cells = cells_of(scheme, bits)
    taken = torch.zeros(FINE + 2, dtype=torch.long)
    taken.index_add_(0, cells.low.reshape(-1), torch.ones(cells.low.numel(), dtype=torch.long))
    taken.index_add_(0, cells.high.reshape(-1), -torch.ones(cells.low.numel(), dtype=torch.long))
    inside = taken.cumsum(0)
    assert (int(inside.min()), int(inside.max())) == (0, 1)
    assert torch.equal((cells.high - cells.low).double(), cells.fine)
    assert int(inside[FINE:].sum()) == 0  # what is out of range


@pytest.mark.parametrize(
    ("scheme", "halves"),
    [
        (Scheme.NF4, 2 * 16 - 2),  # nothing is beyond the outermost levels
        (Scheme.FP4, 2 * 15 - 2 - 4),  # zero's cell and the halves beside it are too narrow for positions
        (Scheme.INT8, 2 * 255 - 2 - 2 * 3),  # three half-cells at either end lie beyond 98 % of the axis
    ],
)
def test_every_cell_has_two_halves(scheme: Scheme, halves: int) -> None:
    cells = cells_of(scheme)
    assert cells.sides.shape == (2, halves)
    assert cells.sides.sum(1).tolist() == [halves / 2, halves / 2]
    assert bool((cells.sides.sum(0) == 1).all())
    assert bool((cells.fine.sum(1) > 0).all())


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_positions_run_from_the_boundary_to_the_level(scheme: Scheme) -> None:
    """Upwards in the lower half of a cell and downwards in the upper one."""
    cells, axis = cells_of(scheme), axis_of(scheme)
    u = middle(cells)
    for half, upper in zip(u, cells.sides[1].bool(), strict=True):
        there = half[half.isfinite()]
        steps = torch.diff(there)
        assert bool((steps < 0).all() if upper else (steps > 0).all())
        level = axis.levels[(axis.levels - there[-1]).abs().argmin()]
        edge = axis.edges[(axis.edges - there[0]).abs().argmin()]
        assert (level > edge) != bool(upper)
        place = (there - edge) / (level - edge)
        assert float(place.min()) >= 0
        assert float(place.max()) <= 1


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_a_weight_on_a_level_is_at_the_last_position_and_one_at_a_boundary_at_the_first(scheme: Scheme) -> None:
    cells, axis = cells_of(scheme), axis_of(scheme)
    for places, position in ((axis.levels, -1), (axis.edges, 0)):
        within = places[(places.abs() < REACH) & (places.abs() > 0.1)]
        counts = torch.zeros(FINE + 1)
        bins = ((within + 1) * HALF).long()
        for side in (bins - 1, bins):
            counts.index_add_(0, side, torch.ones(len(bins)))
        seen = cells.observed(running_sum(counts)).sum(0)
        assert float(seen[position]) == float(seen.sum()) > 0


@pytest.mark.parametrize(("scheme", "bits"), EVERY)
def test_a_flat_density_gives_a_flat_profile(scheme: Scheme, bits: int) -> None:
    cells = cells_of(scheme, bits)
    running = running_sum(torch.full((FINE + 1,), 100.0))
    observed, expected = cells.observed(running), cells.expected(fit_density(running))
    assert torch.allclose(observed, 100 * cells.fine)
    assert torch.allclose(expected, observed, rtol=1e-4)
    assert torch.allclose(observed.sum(0), observed.sum(0).mean().expand(cells.axis.positions), rtol=0.25)


def test_cells_finer_than_bfloat16_are_left_out() -> None:
    """Beyond a quarter of the absmax, its values lie further apart than a quarter of a step of INT8."""
    for bits, furthest in ((0, 0.98), (13, 0.98), (16, 0.25)):
        u = middle(cells_of(Scheme.INT8, bits))
        assert float(u[u.isfinite()].abs().max()) == pytest.approx(furthest, abs=0.01)
    for scheme in (Scheme.NF4, Scheme.FP4):
        assert cells_of(scheme, 16).halves == cells_of(scheme).halves


def test_zeros_are_at_no_position() -> None:
    counts = torch.zeros(FINE + 1)
    counts[HALF] = 1e6
    for scheme in ROUNDINGS:
        cells = cells_of(scheme)
        assert float(cells.observed(running_sum(counts)).sum()) == 0
        assert cells.on_level(counts) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_dequantized_weights_are_on_their_levels_and_honest_ones_are_not(scheme: Scheme, dtype: torch.dtype) -> None:
    weight = honest(1, dtype)
    stored = dequantized(weight, scheme)
    for tensor, least, most in ((stored, ON_GRID, 1.0), (weight, 0.0, 0.2)):
        cells = cells_of(scheme, lattice_of(tensor).bits)
        assert least <= cells.on_level(getattr(counts_of(tensor), cells.axis.counts)) <= most


def test_cells_end_half_way_between_levels() -> None:
    for scheme in ROUNDINGS:
        grid, axis = grid_for(scheme), axis_of(scheme)
        assert torch.allclose(axis.edges[1:-1], (axis.levels[1:] + axis.levels[:-1]) / 2, atol=1e-7)
        assert (len(axis.edges), len(axis.levels)) == (len(grid.levels) + 1, len(grid.levels))
        assert FINE // 2 * float(axis.levels.max()) == pytest.approx(127 * 256 if scheme is Scheme.INT8 else HALF)
