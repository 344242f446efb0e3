"""Counting: against a plain loop over blocks, whatever the dtype, the width and the odd values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for
from quantguard.scan.cells import axis_of
from quantguard.scan.histogram import FINE, HALF, LEVEL, PIECE, Lattice, count, dither_noise, lattice_of, rows_at_once
from tests.scan.weights import DTYPES, counts_of, generator, honest

BITS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}
SHAPES = [(3, 128), (5, 63), (2, 2), (1, 64), (7, 97), (64, 1), (130, 65)]


def spread_values(weight: Tensor, noise: Tensor | None) -> NDArray[np.float32]:
    bits = weight.float().reshape(-1).numpy().view(np.int32)
    moved = bits if noise is None else bits + noise[: bits.size].numpy()
    return moved.view(np.float32)


def plain(weight: Tensor, noise: Tensor | None) -> tuple[list[int], list[int]]:
    """Fine bin of each weight by its block and by its row, one block after the other."""
    values = spread_values(weight, noise)
    stored = weight.float().reshape(-1).numpy()
    rows, columns = weight.shape
    halves = weight.half().float().numpy()
    block, row = [], []
    for i, value in enumerate(values):
        absmax = np.abs(stored[i // 64 * 64 : i // 64 * 64 + 64]).max()
        block.append(fine_bin(value, absmax, HALF))
        row.append(fine_bin(value, np.abs(halves[i // columns]).max(), 127 * LEVEL))
    assert len(row) == rows * columns
    return block, row


def fine_bin(value: np.float32, absmax: np.float32, steps: int) -> int:
    with np.errstate(all="ignore"):
        place = value * (np.float32(1) / absmax * np.float32(steps)) + np.float32(HALF)  # torch divides in two steps
    return int(np.clip(place, 0, FINE)) if np.isfinite(place) else 0


def test_the_reference_puts_the_ends_and_the_middle_where_they_belong() -> None:
    one = np.float32(1)
    assert [fine_bin(np.float32(v), one, HALF) for v in (-1, 0, 1)] == [0, HALF, FINE]
    assert fine_bin(np.float32(1), one, 127 * LEVEL) == HALF + 127 * LEVEL


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_counts_are_those_of_a_plain_loop(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = honest(1, dtype, shape)
    flat = weight.view(-1)
    flat[0] = 0.0
    flat[-1] = -0.0
    if flat.numel() > 70:
        flat[1:3] = torch.tensor([1e-7, -1e-40]).to(dtype)  # a denormal of float16, and one of float32
    noise = dither_noise(lattice_of(weight))
    counts, finite = count(weight, noise)
    block, row = plain(weight, noise)
    padded = -flat.numel() % 64
    filled = torch.bincount(torch.tensor(block), minlength=FINE + 1)
    # Padding is zeros, which are at no position: they are in the bin of zeros, or out of range.
    assert int(counts.block.sum() - filled.sum()) == padded
    difference = counts.block - filled
    assert set(difference.nonzero().view(-1).tolist()) <= {0, HALF}
    assert bool((difference >= 0).all())
    assert torch.equal(counts.row, torch.bincount(torch.tensor(row), minlength=FINE + 1))
    assert finite


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_block_of_zeros_is_at_no_position(dtype: torch.dtype) -> None:
    weight = honest(2, dtype, (4, 64))
    weight[1] = 0
    counts = counts_of(weight)
    assert int(counts.block.sum()) == int(counts.row.sum()) == 256
    for axis in (counts.block, counts.row):
        assert int(axis[0] + axis[HALF]) >= 64
    alone, finite = count(torch.zeros(4, 64, dtype=dtype), None)
    assert finite
    assert int(alone.block[1:HALF].sum() + alone.block[HALF + 1 :].sum()) == 0


@given(
    rows=st.integers(1, 9),
    columns=st.sampled_from([1, 3, 63, 64, 65, 128, 200]),
    dtype=st.sampled_from(DTYPES),
    value=st.sampled_from([float("inf"), float("-inf"), float("nan")]),
    where=st.floats(0, 1, exclude_max=True),
    spread=st.booleans(),
)
def test_a_value_that_is_no_number_is_seen_wherever_it_is(
    rows: int, columns: int, dtype: torch.dtype, value: float, where: float, *, spread: bool
) -> None:
    weight = honest(3, dtype, (rows, columns))
    noise = dither_noise(Lattice(BITS[dtype]))
    assert count(weight, noise, spread=spread)[1]
    weight.view(-1)[int(where * weight.numel())] = value
    counts, finite = count(weight, noise, spread=spread)
    assert not finite
    assert int(counts.row.sum()) == weight.numel()


@given(
    columns=st.sampled_from([2, 63, 64, 65, 96, 200, 256]),
    dtype=st.sampled_from(DTYPES),
    cuts=st.lists(st.integers(0, 12), max_size=3),
)
def test_pieces_of_whole_blocks_add_up_to_the_whole(columns: int, dtype: torch.dtype, cuts: list[int]) -> None:
    step = 64 // np.gcd(64, columns)
    assert rows_at_once(columns) % step == 0
    rows = 12 * int(step) + 1
    weight = honest(4, dtype, (rows, columns))
    whole, _ = count(weight, None)
    ends = [0, *sorted(int(step) * cut for cut in cuts), rows]
    parts = [count(weight[a:b], None)[0] for a, b in pairwise(ends) if b > a]
    assert torch.equal(torch.stack([part.block for part in parts]).sum(0), whole.block)
    assert torch.equal(torch.stack([part.row for part in parts]).sum(0), whole.row)


@given(columns=st.integers(1, 3 * PIECE))
def test_a_piece_is_whole_blocks_and_no_larger_than_it_must_be(columns: int) -> None:
    rows = rows_at_once(columns)
    assert rows * columns % 64 == 0
    least = 64 // int(np.gcd(64, columns))
    assert rows == least or rows * columns <= PIECE


@pytest.mark.parametrize("scheme", ROUNDINGS)
@pytest.mark.parametrize("shape", [(128, 192), (64, 131)])
def test_weights_in_the_bins_of_a_cell_are_those_the_grid_rounds_to_its_level(
    scheme: Scheme, shape: tuple[int, int]
) -> None:
    """But for those within a bin of a boundary, and under INT8 those that its cast to float16 may carry over one."""
    grid, axis, weight = grid_for(scheme), axis_of(scheme), honest(5, size=shape)
    counts = getattr(counts_of(weight), axis.counts)
    edges = ((axis.edges[1:-1] + 1) * HALF).round().long()
    running = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    bounds = torch.cat([torch.tensor([0]), edges, torch.tensor([FINE + 1])])
    mine = running[bounds[1:]] - running[bounds[:-1]]
    if axis.counts == "block":
        mine[grid.levels.eq(0).nonzero()[0, 0]] -= -weight.numel() % 64  # the padding of a short last block
    theirs = torch.bincount(grid.nearest(weight).view(-1), minlength=len(grid.levels))
    x = grid.normalise(weight).double().view(-1)
    unit = float(grid.levels.max()) / (127 * LEVEL if scheme is Scheme.INT8 else HALF)
    cast = x.abs() * 2**-10 if scheme is Scheme.INT8 else 0 * x
    beside = (x[:, None] - grid.boundaries.double()).abs() <= (2 * unit + cast)[:, None]
    slack = torch.nn.functional.pad(beside.sum(0), (1, 0)) + torch.nn.functional.pad(beside.sum(0), (0, 1))
    assert bool(((mine - theirs).abs() <= slack).all())
    assert int(slack.sum()) < weight.numel() / 3


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_a_spread_value_rounds_back_to_what_was_stored(dtype: torch.dtype) -> None:
    """So it is never further away than half the spacing; and it is as often above as below."""
    weight = honest(6, dtype, (64, 512)).view(-1)
    moved = torch.from_numpy(spread_values(weight, dither_noise(Lattice(BITS[dtype]))))
    back = moved.to(dtype)
    assert float((back != weight).double().mean()) < 1e-3  # ties go to the even neighbour
    spacing = (torch.nextafter(weight.float().abs(), torch.tensor(9.0)) - weight.float().abs()) * 2 ** BITS[dtype]
    away = (moved - weight.float()) / spacing
    assert float(away.abs().max()) <= 0.5
    assert abs(float(away.mean())) < 0.01
    assert 0.28 < float(away.std()) < 0.3  # sqrt(1 / 12)


def test_noise_is_the_same_in_every_run() -> None:
    for bits in (13, 16):
        noise, again = dither_noise(Lattice(bits)), dither_noise(Lattice(bits))
        assert noise is not None
        assert again is not None
        assert torch.equal(noise, again)
        assert (int(noise.min()), int(noise.max())) == (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        assert len(noise) == PIECE
    assert dither_noise(Lattice(0)) is None


@pytest.mark.parametrize(
    ("stored", "held", "bits"),
    [
        (torch.float32, torch.float32, 0),
        (torch.bfloat16, torch.bfloat16, 16),
        (torch.float16, torch.float16, 13),
        (torch.bfloat16, torch.float32, 16),
        (torch.float16, torch.float32, 13),
        (torch.bfloat16, torch.float16, 16),
    ],
)
def test_the_lattice_is_that_of_the_values_and_not_of_the_dtype(
    stored: torch.dtype, held: torch.dtype, bits: int
) -> None:
    weight = honest(7).to(stored).to(held)
    if held is torch.float16 and stored is torch.bfloat16:
        weight = weight[weight.abs() > 1e-4]  # what is no denormal of float16
    assert lattice_of(weight) == Lattice(bits)


@pytest.mark.parametrize("weight", [torch.zeros(2, 2), torch.tensor([[1.0, -2.0]]), torch.empty(0, 4)])
def test_values_that_any_dtype_holds_are_on_the_coarsest_lattice(weight: Tensor) -> None:
    assert lattice_of(weight) == Lattice(16)


def test_one_value_off_the_lattice_is_enough() -> None:
    weight = honest(8).bfloat16().float()
    weight[200, 3] = 1.0009765625  # in float16, not in bfloat16
    assert lattice_of(weight) == Lattice(13)
    weight[200, 3] = 1.0000001
    assert lattice_of(weight) == Lattice(0)


@pytest.mark.parametrize("held", [torch.bfloat16, torch.float32, torch.float16])
def test_bfloat16_values_count_alike_whatever_dtype_holds_them(held: torch.dtype) -> None:
    weight = honest(9, torch.bfloat16, (32, 128)) + 0.02  # no denormal of float16 among them
    weight = torch.where(weight.abs() < 1e-3, torch.full_like(weight, 0.015625), weight)
    assert torch.equal(counts_of(weight).block, counts_of(weight.to(held)).block)
    assert torch.equal(counts_of(weight).row, counts_of(weight.to(held)).row)


def test_the_weight_itself_is_not_changed() -> None:
    """float32 that holds bfloat16 values is looked at in place."""
    weight = honest(10, torch.bfloat16).float()
    before = weight.clone()
    counts_of(weight)
    count(weight, dither_noise(Lattice(16)), spread=True)
    assert torch.equal(weight, before)


def test_rows_longer_than_a_piece_are_spread_too() -> None:
    weight = torch.ones(2, PIECE + 64, dtype=torch.bfloat16)
    weight.view(-1)[::3] = 0.5
    counts, _ = count(weight, dither_noise(Lattice(16)))
    about = counts.block[HALF + HALF // 2 - 256 : HALF + HALF // 2 + 256]
    assert int((about > 0).sum()) == 97  # half a spacing is 2**-9 above 0.5, and half of that below it
    assert int(about.max()) < int(about.sum()) / 50


@pytest.mark.parametrize("columns", [64, 100])
def test_on_int8_levels_each_weight_is_spread_over_its_step(columns: int) -> None:
    """The density on the block's axis is then smooth again, where the levels alone would be a comb."""
    grid = grid_for(Scheme.INT8)
    weight = honest(11, size=(320, columns))
    stored = grid.dequantize(grid.nearest(weight), grid.scale(weight))
    combed = counts_of(stored).block
    spread, finite = count(stored, None, spread=True)
    assert finite
    used = [int((axis[1:-1] > 0).sum()) for axis in (combed, spread.block, counts_of(weight).block)]
    assert used[0] < 0.75 * used[2]
    assert abs(used[1] - used[2]) < 0.05 * used[2]


def test_spreading_is_the_same_in_every_run() -> None:
    weight = torch.randint(-127, 128, (64, 96), generator=generator(1)).float()
    assert torch.equal(count(weight, None, spread=True)[0].block, count(weight, None, spread=True)[0].block)
