"""A hardened file has the same codes on every device, also where the original had none that all agree on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import Grid, grid_for
from quantguard.harden.scales import deciding
from quantguard.harden.settled import Settled, settled
from tests.grids.real import round_trip

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
GRIDS = tuple(grid_for(scheme) for scheme in ROUNDINGS)


def on_boundaries(grid: Grid, dtype: torch.dtype) -> Tensor:
    """Some of the weights as near to a boundary of `grid` as the dtype gets, on either side: (96, 192)."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(96, 192, generator=generator) * 0.02
    boundary = grid.boundaries[torch.randint(grid.boundaries.numel(), weight.shape, generator=generator)]
    prepared = (torch.rand(weight.shape, generator=generator) < 0.2) & ~deciding(weight)
    return torch.where(prepared, boundary * grid.unit(weight), weight).to(dtype)


def of_another_device(grid: Grid, weight: Tensor) -> Tensor:
    """Levels by a kernel that divides in double precision, where the library multiplies by a rounded reciprocal."""
    source = weight.half() if grid.scheme is Scheme.INT8 else weight
    x = source.double() / grid.scale(weight).double()
    x = x * 127 if grid.scheme is Scheme.INT8 else x
    return torch.bucketize(x, grid.boundaries.double(), right=True)


@pytest.mark.parametrize("grid", GRIDS, ids=[grid.scheme.value for grid in GRIDS])
def test_another_device_stores_the_same_codes_of_settled_weights_only(grid: Grid) -> None:
    weight = on_boundaries(grid, torch.float32)
    after = settled(weight, GRIDS)
    free = ~deciding(weight)
    before = (grid.on_boundary(weight) & free).sum()
    left = grid.on_boundary(after) & free  # where a boundary of another grid is as near
    assert int(left.sum()) <= 0.005 * int(before)
    assert bool((of_another_device(grid, weight) != grid.nearest(weight))[free].any())
    settled_ones = free & ~left
    assert torch.equal(of_another_device(grid, after)[settled_ones], grid.nearest(after)[settled_ones])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("prepared", GRIDS, ids=[grid.scheme.value for grid in GRIDS])
def test_settling_changes_no_level_and_no_scale_and_hardly_any_value(prepared: Grid, dtype: torch.dtype) -> None:
    weight = on_boundaries(prepared, dtype)
    after = settled(weight, GRIDS)
    assert after.dtype == dtype
    for grid in GRIDS:
        assert torch.equal(round_trip(grid.scheme, after), round_trip(grid.scheme, weight))
        assert int(grid.on_boundary(after).sum()) <= int(grid.on_boundary(weight).sum())
    moved = after != weight
    assert bool((moved <= torch.stack([grid.on_boundary(weight) for grid in GRIDS]).any(0)).all())
    # At most two steps of the dtype, or of the float16 that INT8 takes, or a five-thousandth of a cell.
    step = weight.abs().float() * 2 * max(torch.finfo(dtype).eps, torch.finfo(torch.float16).eps)
    assert bool(((after.float() - weight.float()).abs() <= torch.maximum(step, 4e-4 * prepared.unit(weight))).all())


def test_weights_off_every_boundary_keep_their_bits() -> None:
    weight = torch.randn(64, 192, generator=torch.Generator().manual_seed(1))
    once = settled(weight, GRIDS)
    assert torch.equal(settled(once, GRIDS), once)


def test_a_mapping_settles_what_it_is_asked_for_whatever_its_pieces() -> None:
    weight = on_boundaries(grid_for(Scheme.INT8), torch.float32)
    wrapped = Settled({"w": weight}, [Scheme.NF4_DOUBLE, Scheme.INT8, Scheme.NF4])
    assert list(wrapped) == ["w"]
    assert len(wrapped) == 1
    assert torch.equal(wrapped["w"], settled(weight, (grid_for(Scheme.NF4), grid_for(Scheme.INT8))))
