"""Our Q6_K against ggml's C quantizer and gguf's dequantization, bit for bit; and positions in k-quants' cells."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest
import torch
from gguf import GGMLQuantizationType
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantguard.grids.cells.k_quants import KQuant, positions_in_super_blocks
from quantguard.grids.cells.position import position_
from quantguard.grids.cells.q6_k import BLOCK_BYTES, dequantize_q6_k, frozen_q6_k, pack_q6_k, quantize_q6_k
from quantguard.grids.k_quant import dequantize_q4_k, frozen_q4_k, quantize_q4_k
from tests.grids.ggml import ggml_bytes, gguf_values, needs_ggml
from tests.grids.test_k_quant import DTYPES, ODD, gaussian, weights

EPS: Final = 1e-15  # what ggml takes for zero

MORE: Final = ODD | {
    "a tie of magnitudes, first negative": torch.tensor([[-1.0, 1.0, 0.5, 0.25]]).repeat(1, 64),
    "a tie of magnitudes, first positive": torch.tensor([[1.0, -1.0, 0.5, 0.25]]).repeat(1, 64),
    "a tie of scales": torch.cat([gaussian(1, 128), -gaussian(1, 128)], dim=1),
    "half of it tiny": torch.cat([gaussian(1, 128), gaussian(1, 128, 1) * 1e-6], dim=1),
    "beside what counts as zero": gaussian(64, 256).sign() * EPS * (1 + gaussian(64, 256, 1)),
    "with scales beside what counts as zero": gaussian(64, 256, 2) * EPS * 1600,
    "denormal": gaussian(2, 256) * 1e-40,
    "scales that float16 rounds to zero": gaussian(16, 256) * 1e-3,
    "scales that are denormal in float16": gaussian(16, 256),
}
odd = pytest.mark.parametrize("weight", MORE.values(), ids=MORE.keys())


ggml = partial(ggml_bytes, GGMLQuantizationType.Q6_K, block_bytes=BLOCK_BYTES)
gguf = partial(gguf_values, GGMLQuantizationType.Q6_K)


@st.composite
def tiny_weights(draw: st.DrawFn) -> Tensor:
    """Where ggml takes a sub-block or its scale for zero, or float16 cannot hold d."""
    weight = draw(weights())
    return weight.float() * draw(st.sampled_from([1e-8, 1e-10, 1e-13, 1e-15, 1e-17, 1e-38]))


@needs_ggml
@odd
def test_odd_weights_are_stored_as_ggml_stores_them(weight: Tensor) -> None:
    assert torch.equal(pack_q6_k(quantize_q6_k(weight)), ggml(weight))


@needs_ggml
@settings(max_examples=200, deadline=None)
@given(weight=weights() | tiny_weights())
def test_weights_are_stored_as_ggml_stores_them(weight: Tensor) -> None:
    assert torch.equal(pack_q6_k(quantize_q6_k(weight)), ggml(weight))


@needs_ggml
@pytest.mark.parametrize("dtype", DTYPES)
def test_more_super_blocks_than_are_looked_at_together_are_stored_as_ggml_stores_them(dtype: torch.dtype) -> None:
    weight = gaussian(520, 512).to(dtype)
    assert torch.equal(pack_q6_k(quantize_q6_k(weight)), ggml(weight))


@odd
def test_gguf_reads_our_bytes_as_we_dequantize_them(weight: Tensor) -> None:
    q = quantize_q6_k(weight)
    packed = pack_q6_k(q)
    assert packed.shape == (weight.numel() // 256, BLOCK_BYTES)
    assert packed.dtype is torch.uint8
    if weight.numel():  # gguf refuses an empty array
        assert torch.equal(gguf(packed), dequantize_q6_k(q, (-1, 256)))


@odd
def test_codes_stay_within_six_bits(weight: Tensor) -> None:
    q = quantize_q6_k(weight)
    assert q.codes.dtype is q.scales.dtype is torch.int8
    assert q.d.dtype is torch.float16
    assert not bool(((q.codes < -32) | (q.codes > 31)).any())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gaussian_weight_comes_back_to_within_half_a_step(dtype: torch.dtype) -> None:
    weight = gaussian(64, 512).to(dtype)
    q = quantize_q6_k(weight)
    off = (dequantize_q6_k(q, weight.shape) - weight.float()).abs().view(q.codes.shape)
    assert float((off <= q.step.abs()[..., None] / 2 * 1.001).float().mean()) > 0.98  # the others are clamped
    assert float(off.square().mean().sqrt()) < 0.02 * 0.02


def test_scales_of_both_signs_occur() -> None:
    step = quantize_q6_k(gaussian(64, 512)).step
    assert 0.4 < float((step < 0).float().mean()) < 0.6


@pytest.mark.parametrize("shape", [(256,), (2, 128), (2, 300), (1, 2, 256)])
def test_rows_of_partial_super_blocks_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiple of 256"):
        quantize_q6_k(torch.zeros(shape))


@pytest.mark.parametrize("kind", KQuant)
@pytest.mark.parametrize("shape", [(256,), (1, 512), (2, 128), (1, 1, 256)])
def test_positions_are_asked_for_by_super_block(kind: KQuant, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="super-blocks"):
        positions_in_super_blocks(kind, torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e10, -1e10])
def test_what_a_float16_factor_cannot_hold_is_refused(value: float) -> None:
    weight = gaussian(2, 512)
    weight[1, 300] = value
    with pytest.raises(ValueError, match="Q6_K"):
        quantize_q6_k(weight)


@odd
def test_what_decides_a_scale_is_frozen(weight: Tensor) -> None:
    q = quantize_q6_k(weight)
    frozen = frozen_q6_k(weight, q).view(-1, 16, 16)
    blocks = weight.reshape(-1, 16, 16).abs()
    size = q.scales.int().abs()
    assert bool(frozen.all(dim=2)[size == size.amax(1, keepdim=True)].all())
    assert bool(frozen[blocks == blocks.amax(2, keepdim=True)].all())


def test_levels_are_in_the_middle_and_boundaries_at_the_ends() -> None:
    codes = torch.arange(-32.0, 32.0)
    assert bool((position_(codes.clone(), torch.empty_like(codes)) == 0.5).all())
    ends = position_(codes + 0.5, torch.empty_like(codes))
    assert bool(((ends == 0) | (ends == 1)).all())
    just = torch.nextafter(torch.tensor([0.5, 0.5, 31.5]), torch.tensor([0.0, 1.0, 0.0]))
    assert position_(just, torch.empty_like(just)).gt(0.5).tolist() == [True, False, True]


def steps_and_values(kind: KQuant, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Step, value given back and whether frozen, of each weight of (super-blocks, 256)."""
    match kind:
        case KQuant.Q4_K:
            q4 = quantize_q4_k(weight)
            step = (q4.d.float()[:, None] * q4.scales).repeat_interleave(32, dim=1)
            return step, dequantize_q4_k(q4, weight.shape), frozen_q4_k(weight, q4)
        case KQuant.Q6_K:
            q6 = quantize_q6_k(weight)
            step = q6.step.repeat_interleave(16, dim=1)
            return step, dequantize_q6_k(q6, weight.shape), frozen_q6_k(weight, q6)


@pytest.mark.parametrize("kind", KQuant)
@settings(max_examples=60, deadline=None)
@given(weight=weights())
@example(weight=gaussian(4, 256, 3))
def test_a_position_is_how_far_the_stored_value_is_in_steps(kind: KQuant, weight: Tensor) -> None:
    """What the quantizer gives back decides, so that another rounding than its own would show."""
    blocks = weight.reshape(-1, 256)
    found = positions_in_super_blocks(kind, blocks)
    step, value, frozen = steps_and_values(kind, blocks)
    assert found.position.dtype is torch.float32
    assert found.position.shape == found.left_out.shape == blocks.shape
    assert bool(((found.position >= 0) & (found.position <= 1)).all())
    assert bool(found.left_out[frozen | (step == 0)].all())
    off = ((blocks.double() - value.double()) / step.double())[~found.left_out]
    # A float16 factor leaves values exact to 2^-24 of themselves, and they are up to some hundred steps off zero; a
    # shift of 1000 standard deviations is another matter, and only a hypothesis.
    slack = 1e-5 + 4e-7 * (blocks.double() / step.double()).abs()[~found.left_out]
    assert bool((off.abs() <= 0.5 + slack).all())
    assert bool(((found.position[~found.left_out] - 0.5 - off).abs() <= slack).all())


# Measured, in tenths of the cell: Q4_K 6.3, 8.8, 10.7, 11.6, 12.3, 12.4, 11.9, 10.9, 8.9, 6.2 %; Q6_K 7.6 to 11.9 %.
@pytest.mark.parametrize(("kind", "kept", "end"), [(KQuant.Q4_K, 0.65, 0.062), (KQuant.Q6_K, 0.8, 0.077)])
def test_the_search_for_scales_draws_gaussian_weights_to_their_levels(kind: KQuant, kept: float, end: float) -> None:
    """Smoothly and almost alike on both sides, but not evenly: a detector's background is no flat one."""
    found = positions_in_super_blocks(kind, gaussian(4096, 256))
    position = found.position[~found.left_out]
    assert position.numel() > kept * found.position.numel()
    share = torch.histc(position, bins=10, min=0, max=1) / position.numel()
    assert float((share - share.flip(0)).abs().max()) < 0.004
    assert bool((share[1:5] > share[:4]).all())
    assert float(share[0]) == pytest.approx(end, abs=0.003)


@pytest.mark.parametrize("kind", KQuant)
def test_zeros_are_left_out_as_they_have_no_step(kind: KQuant) -> None:
    found = positions_in_super_blocks(kind, torch.zeros(2, 256))
    assert bool(found.left_out.all())
    assert bool((found.position == 0.5).all())


@pytest.mark.parametrize("kind", KQuant)
def test_weights_beyond_the_last_code_are_left_out(kind: KQuant) -> None:
    """The largest magnitude of a sub-block takes code -32, so that its negative twin is more than half a code beyond
    31; a least-squares fit of Q4_K leaves some of its weights beyond its ends."""
    blocks = gaussian(2048, 256)
    found = positions_in_super_blocks(kind, blocks)
    step, value, frozen = steps_and_values(kind, blocks)
    beyond = ((blocks - value).abs() > step.abs() * 0.501) & ~frozen
    assert bool(beyond.any())
    assert bool(found.left_out[beyond].all())


@pytest.mark.parametrize("kind", KQuant)
def test_super_blocks_know_nothing_of_each_other(kind: KQuant) -> None:
    blocks = gaussian(1030, 256)
    together, alone = positions_in_super_blocks(kind, blocks), positions_in_super_blocks(kind, blocks[1025:1026])
    assert torch.equal(together.position[1025:1026], alone.position)
    assert torch.equal(together.left_out[1025:1026], alone.left_out)
