"""Positions in asymmetric groups against the published quantizers, written again group by group in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantguard.grids.cells.groups import ZeroPoint, fine_index, group_ranges, merged, positions_in_groups

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
Array = npt.NDArray[np.float32]

both = pytest.mark.parametrize("zero", ZeroPoint)


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Any shape, with shifts, ties, zeros, constants, and magnitudes down to where a dtype ends."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    weight = torch.randn(draw(st.integers(1, 5)), draw(st.integers(1, 300)), generator=generator)
    weight = weight * draw(st.sampled_from([0.0, 1.0])) + draw(st.sampled_from([0.0, 0.0, 0.5, -20.0]))
    if draw(st.booleans()):
        weight = (weight * 4).round() / 4
    share = draw(st.sampled_from([0.0, 0.3, 0.97]))
    weight = torch.where(torch.rand(weight.shape, generator=generator) < share, torch.zeros(()), weight)
    return (weight * 10.0 ** draw(st.sampled_from([-30, -6, -2, 0, 2]))).to(draw(st.sampled_from(DTYPES)))


sizes = st.sampled_from([1, 7, 32, 64, 128, 1000])


def by_group(weight: Tensor, size: int) -> list[tuple[int, slice, Array]]:
    """Row, columns and float32 values of each group."""
    values: Array = weight.float().numpy()
    return [
        (row, slice(start, start + size), values[row, start : start + size])
        for row in range(weight.shape[0])
        for start in range(0, weight.shape[1], size)
    ]


def gptq(w: Array) -> tuple[Array, Array]:
    """Codes and axis of one group: find_params and quantize of AutoGPTQ, asymmetric, 4 bits."""
    low, high = min(w.min(), np.float32(0)), max(w.max(), np.float32(0))
    if low == 0 and high == 0:
        low, high = np.float32(-1), np.float32(1)
    scale = (high - low) / np.float32(15)
    zero = np.rint(-low / scale)
    return np.clip(np.rint(w / scale) + zero, 0, 15), w / scale


def awq(w: Array) -> tuple[Array, Array]:
    """Codes and axis of one group: pseudo_quantize_tensor of AWQ with a zero point, 4 bits, in float32."""
    scale = max(w.max() - w.min(), np.float32(1e-5)) / np.float32(15)
    zero = np.clip(-np.rint(w.min() / scale), 0, 15)
    return np.clip(np.rint(w / scale) + zero, 0, 15), w / scale


def hqq(w: Array) -> tuple[Array, Array]:
    """Codes and axis of one group: Quantizer.quantize of HQQ before it optimizes, 4 bits."""
    with np.errstate(divide="ignore", over="ignore"):
        scale = min((np.float32(1) / (w.max() - w.min())) * np.float32(15), np.float32(2e4))
    axis = w * scale + -w.min() * scale
    return np.clip(np.rint(axis), 0, 15), axis


def reference(zero: ZeroPoint, weight: Tensor, size: int) -> tuple[Array, npt.NDArray[Any]]:
    """Positions, and what is left out."""
    position = np.zeros(weight.shape, np.float32)
    left_out = np.zeros(weight.shape, bool)
    quantize = {ZeroPoint.INTEGER: gptq, ZeroPoint.FLOAT: hqq}[zero]
    for row, columns, w in by_group(weight, size):
        axis = quantize(w)[1]
        position[row, columns] = axis - np.rint(axis) + np.float32(0.5)
        left_out[row, columns] = (w == w.min()) | (w == w.max())
    return position, left_out


@settings(max_examples=200, deadline=None)
@given(weight=weights(), size=sizes, zero=st.sampled_from(ZeroPoint))
def test_positions_are_those_of_the_published_quantizer(weight: Tensor, size: int, zero: ZeroPoint) -> None:
    found = positions_in_groups(weight, size, zero)
    position, left_out = reference(zero, weight, size)
    assert found.position.dtype is torch.float32
    assert found.left_out.dtype is torch.bool
    np.testing.assert_array_equal(found.left_out.numpy(), left_out)
    np.testing.assert_array_equal(found.position.numpy()[~left_out], position[~left_out])
    assert bool(((found.position >= 0) & (found.position <= 1)).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [32, 64, 128])
def test_gptq_and_awq_have_the_same_codes_where_weights_have_both_signs(size: int, dtype: torch.dtype) -> None:
    for _, _, w in by_group(gaussian(8, 384).to(dtype), size):
        for ours, theirs in zip(gptq(w), awq(w), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@both
@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_position_says_how_far_the_code_is(zero: ZeroPoint, size: int) -> None:
    """Codes from the reference with its clamp, so that a weight clamped to another cell would show."""
    weight = gaussian(16, 400)
    found = positions_in_groups(weight, size, zero)
    for row, columns, w in by_group(weight, size):
        codes, axis = {ZeroPoint.INTEGER: gptq, ZeroPoint.FLOAT: hqq}[zero](w)
        position, left_out = found.position[row, columns].numpy(), found.left_out[row, columns].numpy()
        off = axis - codes
        shift = np.rint(np.median(off))  # the integer zero point, or nothing
        np.testing.assert_allclose((off - shift)[~left_out], (position - 0.5)[~left_out], atol=1e-6)
        if zero is ZeroPoint.FLOAT:
            assert shift == 0


@both
def test_levels_are_in_the_middle_and_boundaries_at_the_ends(zero: ZeroPoint) -> None:
    """A step of 2^-5, a zero point of 7: what lies half way between levels is at 0 or 1, as it is rounded to even."""
    levels = torch.arange(-7.0, 9.0) / 32  # both ends are left out
    between = torch.arange(-6.5, 8.0) / 32
    weight = torch.cat([levels, between, torch.zeros(1)])[None]
    found = positions_in_groups(weight, 32, zero)
    assert found.left_out[0].nonzero()[:, 0].tolist() == [0, 15]
    assert bool((found.position[0, :16] == 0.5).all())
    assert set(found.position[0, 16:31].tolist()) == {0.0, 1.0}


@both
@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_constant_group_is_left_out(zero: ZeroPoint, value: float) -> None:
    weight = gaussian(2, 96)
    weight[1, 32:64] = value
    left_out = positions_in_groups(weight, 32, zero).left_out
    assert bool(left_out[1, 32:64].all())
    assert int(left_out.sum()) == 32 + 5 * 2


def test_a_short_last_group_is_a_group_of_its_own() -> None:
    weight = gaussian(3, 150)
    whole, rest = positions_in_groups(weight[:, :128], 64), positions_in_groups(weight[:, 128:], 64)
    found = positions_in_groups(weight, 64)
    assert torch.equal(found.position, torch.cat([whole.position, rest.position], dim=1))
    assert torch.equal(found.left_out, torch.cat([whole.left_out, rest.left_out], dim=1))


@settings(max_examples=100, deadline=None)
@given(weight=weights(), size=st.sampled_from([1, 7, 32]), factor=st.sampled_from([1, 2, 4]))
def test_ranges_of_longer_groups_are_those_of_shorter_ones_merged(weight: Tensor, size: int, factor: int) -> None:
    ours, theirs = merged(group_ranges(weight, size), factor), group_ranges(weight, size * factor)
    assert ours.size == theirs.size
    assert torch.equal(ours.low, theirs.low)
    assert torch.equal(ours.high, theirs.high)


@settings(max_examples=150, deadline=None)
@given(weight=weights(), size=sizes, zero=st.sampled_from(ZeroPoint), bins=st.sampled_from([1, 100, 1024, 1 << 20]))
def test_the_index_is_the_position_in_bins(weight: Tensor, size: int, zero: ZeroPoint, bins: int) -> None:
    found = positions_in_groups(weight, size, zero)
    expected = (found.position * bins).floor().clamp(max=bins - 1).int().masked_fill(found.left_out, bins)
    index = fine_index(weight, size, bins, zero)
    assert index.dtype is torch.int32
    assert torch.equal(index, expected)
    assert torch.equal(fine_index(weight, size, bins, zero, ranges=group_ranges(weight, size)), expected)
    out = torch.full(weight.shape, -1, dtype=torch.int32)
    assert fine_index(weight, size, bins, zero, out=out) is out
    assert torch.equal(out, expected)


@both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1000, 1024])
def test_rows_know_nothing_of_each_other(zero: ZeroPoint, dtype: torch.dtype, columns: int) -> None:
    """More weights than are looked at together."""
    weight = gaussian(600, columns).to(dtype)
    alone = fine_index(weight[577:580], 64, 256, zero)
    assert torch.equal(fine_index(weight, 64, 256, zero)[577:580], alone)
    ranges = merged(group_ranges(weight, 32), 2)
    assert torch.equal(fine_index(weight, 64, 256, zero, ranges=ranges)[577:580], alone)
    assert torch.equal(
        positions_in_groups(weight, 64, zero).position[577:580], positions_in_groups(weight[577:580], 64, zero).position
    )


@both
def test_the_weight_is_read_only_and_may_be_a_view(zero: ZeroPoint) -> None:
    weight = gaussian(70, 200)
    kept = weight.clone()
    for view in (weight.t(), weight[:, 3:150], weight[::2]):
        assert torch.equal(fine_index(view, 32, 64, zero), fine_index(view.contiguous(), 32, 64, zero))
        assert torch.equal(
            positions_in_groups(view, 32, zero).position, positions_in_groups(view.contiguous(), 32, zero).position
        )
    assert torch.equal(weight, kept)


@pytest.mark.parametrize("shape", [(0, 64), (3, 0)])
def test_no_weights_give_no_positions(shape: tuple[int, int]) -> None:
    assert positions_in_groups(torch.zeros(shape), 32).position.shape == shape
    assert fine_index(torch.zeros(shape), 32, 64).shape == shape


@pytest.mark.parametrize(("shape", "size"), [((64,), 32), ((1, 2, 64), 32), ((2, 64), 0)])
def test_another_shape_or_no_size_is_refused(shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError, match="groups take"):
        positions_in_groups(torch.zeros(shape), size)
    with pytest.raises(ValueError, match="groups take"):
        fine_index(torch.zeros(shape), size, 64)


@both
def test_positions_of_a_gaussian_weight_are_spread_evenly(zero: ZeroPoint) -> None:
    index = fine_index(gaussian(512, 1024), 64, 10, zero)
    counts = torch.bincount(index.view(-1), minlength=11)
    assert int(counts[10]) == 512 * 16 * 2
    share = counts[:10] / counts[:10].sum()
    assert float((share - 0.1).abs().max()) < 0.01
