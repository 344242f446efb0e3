"""Commit, then quantize with the real library: it returns the choice, for every weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.commit import commit, pin
from quantguard.grids.grid import grid_for
from tests.grids.real import round_trip

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SCHEMES = ROUNDINGS


@st.composite
def choices(draw: st.DrawFn) -> tuple[Tensor, int]:
    """A weight with ordinary magnitudes (a model's), and a seed for the choice of levels."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(2, 200))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    weight = torch.randn(rows, columns, generator=generator)
    weight = torch.where(torch.rand(rows, columns, generator=generator) < 0.1, torch.zeros(()), weight)
    scale = draw(st.sampled_from([1e-2, 0.05, 1.0, 30.0]))
    return (weight * scale).to(draw(st.sampled_from(DTYPES))), draw(st.integers(0, 2**31))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("reach", [1, 300])
@settings(max_examples=150, deadline=None)
@given(drawn=choices())
def test_committed_weights_requantize_to_the_chosen_levels(
    scheme: Scheme, reach: int, drawn: tuple[Tensor, int]
) -> None:
    weight, seed = drawn
    grid = grid_for(scheme)
    generator = torch.Generator().manual_seed(seed)
    moves = torch.randint(-reach, reach + 1, weight.shape, generator=generator)
    chosen = pin(grid, weight, (grid.nearest(weight) + moves).clamp(0, grid.levels.numel() - 1))
    committed = commit(grid, weight, chosen)
    assert committed.dtype == weight.dtype
    assert torch.equal(committed[grid.pinned(weight)], weight[grid.pinned(weight)])
    assert torch.equal(round_trip(scheme, committed), grid.dequantize(chosen, grid.scale(weight)))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_matrices_commit_exactly(scheme: Scheme, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = (torch.randn(512, 768, generator=generator) * 0.03).to(dtype)
    grid = grid_for(scheme)
    flips = torch.rand(weight.shape, generator=generator) < 0.5
    chosen = pin(grid, weight, torch.where(flips, grid.neighbour(weight), grid.nearest(weight)))
    committed = commit(grid, weight, chosen)
    assert torch.equal(round_trip(scheme, committed), grid.dequantize(chosen, grid.scale(weight)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_well_inside_their_chosen_cell_keep_their_bits(scheme: Scheme) -> None:
    weight = torch.randn(400, 128, generator=torch.Generator().manual_seed(5))
    grid = grid_for(scheme)
    committed = commit(grid, weight, grid.nearest(weight))
    inside = (grid.position_in_cell(weight) - 0.5).abs() < 0.3
    assert torch.equal(committed[inside], weight[inside])
    assert not torch.equal(committed, weight)  # those beside a boundary were moved off it


def test_moving_a_maximum_is_refused() -> None:
    weight = torch.randn(2, 64, generator=torch.Generator().manual_seed(5))
    grid = grid_for(Scheme.NF4)
    chosen = torch.full_like(weight, 7).long()
    with pytest.raises(ValueError, match="decides its block's scale"):
        commit(grid, weight, chosen)


def test_a_cell_without_a_representable_value_is_refused() -> None:
    """Float16 denormals: the spacing of the dtype is wider than an INT8 cell, so most levels cannot be stored."""
    weight = torch.tensor([[20 * 2.0**-24, 5 * 2.0**-24]], dtype=torch.float16)
    grid = grid_for(Scheme.INT8)
    with pytest.raises(ValueError, match=r"hold no torch\.float16 value"):
        commit(grid, weight, torch.tensor([[254, 160]]))
