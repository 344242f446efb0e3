"""Q6_K, the 6-bit k-quant of GGUF files: scales of 16 weights that are themselves quantized, 256 weights at a time.

Words as in `quantguard.grids.k_quant`: a *super-block* is 256 consecutive weights of a row, here in 16 *sub-blocks* of
16. A sub-block has a 6-bit code per weight and an 8-bit scale, a super-block one float16 factor d. A weight is given
back as d x scale x code; there are no mins, so that zero is always a level.

A scale may be negative: the search puts a sub-block's largest magnitude at code -32, whatever its sign, because there
is no code 32. Arithmetic is that of llama.cpp's quantize_row_q6_K_ref in its order and precision, every product and sum
rounded to float32: a build of it that fuses them, or an importance matrix, gives other codes.

Source: llama.cpp, ggml/src/ggml-quants.c (quantize_row_q6_K_ref, make_qx_quants with rmse_type 1), ggml-common.h
(block_q6_K).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.grids.k_quant import SUPER_BLOCK

SUB_BLOCK: Final = 16  # weights that share a scale
SUB_BLOCKS: Final = SUPER_BLOCK // SUB_BLOCK
CODE_MIN: Final = -32  # 6 bits
CODE_MAX: Final = 31
BLOCK_BYTES: Final = SUPER_BLOCK // 2 + SUPER_BLOCK // 4 + SUB_BLOCKS + 2  # low bits, high bits, scales, d

_TINY: Final = 1e-15  # GROUP_MAX_EPS: what is smaller than this counts as zero
_WIDTHS: Final = (0, *range(-9, 0), *range(1, 10))  # tenths of a code, added to 32: the fits tried, in order
_BLOCKS_AT_ONCE: Final = 512  # so that the search's tensors stay in the second-level cache


@dataclass(frozen=True, slots=True)
class Q6K:
    """A quantized weight, its super-blocks in the order of the flattened weight."""

    codes: Tensor
    """(blocks, 16, 16), int8, -32..31."""
    d: Tensor
    """(blocks,), float16, finite, of either sign."""
    scales: Tensor
    """(blocks, 16), int8; the largest in magnitude is -128, but for super-blocks of zeros."""

    @property
    def step(self) -> Tensor:
        """How much weight one code is: (blocks, 16), float32, negative where the axis of the codes is turned round."""
        return self.d.float()[:, None] * self.scales


def quantize_q6_k(weight: Tensor) -> Q6K:
    """What llama.cpp's reference stores for `weight`.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, finite, columns a multiple of 256.

    Raises:
        ValueError: another shape, or a super-block whose d is no finite float16 (a weight that is NaN or infinite, or
            weights of more than some hundred millions).
    """
    if weight.dim() != 2 or weight.shape[1] % SUPER_BLOCK:
        raise ValueError(f"Q6_K takes (rows, columns) with columns a multiple of 256, not {tuple(weight.shape)}")
    blocks = weight.reshape(-1, SUPER_BLOCK)
    parts = [_quantized(part) for part in torch.split(blocks, _BLOCKS_AT_ONCE)]
    return Q6K(
        torch.cat([part.codes for part in parts]),
        torch.cat([part.d for part in parts]),
        torch.cat([part.scales for part in parts]),
    )


def dequantize_q6_k(q: Q6K, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """d x scale x code, as float32 of `shape`, which holds as many weights as `q`.

    Bit for bit what the package gguf gives back for `pack_q6_k(q)`.
    """
    return (q.step[..., None] * q.codes).reshape(shape)


def pack_q6_k(q: Q6K) -> Tensor:
    """The bytes of a GGUF file (block_q6_K, little-endian): (blocks, 210), uint8.

    Codes are stored plus 32. Each half of a super-block is four quarters of 32 weights: 64 bytes with the low four bits
    of the first two quarters in the low nibbles and of the last two in the high ones; all halves' 64 bytes come before
    the high bits, 32 bytes a half with two bits of each quarter. Then 16 scales, then d.
    """
    stored = (q.codes + -CODE_MIN).to(torch.uint8).view(-1, 2, 4, 32)  # (blocks, halves, quarters, 32)
    low = (stored[:, :, :2] & 15) | (stored[:, :, 2:] << 4)  # (blocks, 2, 2, 32)
    top = stored >> 4
    high = top[:, :, 0] | (top[:, :, 1] << 2) | (top[:, :, 2] << 4) | (top[:, :, 3] << 6)  # (blocks, 2, 32)
    factor = q.d[:, None].contiguous().view(torch.uint8)  # (blocks, 2)
    return torch.cat([low.flatten(1), high.flatten(1), q.scales.view(torch.uint8), factor], dim=1)


def frozen_q6_k(weight: Tensor, q: Q6K) -> Tensor:
    """True where moving a weight may move scales: bool, the shape of `weight`.

    As `k_quant.frozen_q4_k`: the whole of every sub-block with its super-block's largest scale, since it decides d or
    could come to; and of every other sub-block the weights with the largest magnitude, ties included, to which the
    search for its scale is stretched.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, columns a multiple of 256.
        q: `quantize_q6_k(weight)`.
    """
    size = q.scales.to(torch.int16).abs()  # the magnitude of -128 is no int8
    deciding = size == size.amax(1, keepdim=True)  # (blocks, 16)
    x = weight.reshape(-1, SUB_BLOCKS, SUB_BLOCK)
    high, low = x.amax(2, keepdim=True), x.amin(2, keepdim=True)  # (blocks, 16, 1)
    limit = torch.maximum(high, -low)
    return (deciding[..., None] | (x >= limit) | (x <= -limit)).reshape(weight.shape)


def _quantized(blocks: Tensor) -> Q6K:
    """Of (blocks, 256)."""
    x = blocks.reshape(-1, SUB_BLOCK).t().float().contiguous()  # (16, sub-blocks)
    scale, inverse = _best_fit(x)  # (sub-blocks,) each
    d, scales = _eight_bits(scale.view(-1, SUB_BLOCKS))  # (blocks,), (blocks, 16)
    if not bool(d.isfinite().all()):
        raise ValueError("a weight is not finite, or too large for the float16 factor of Q6_K")
    step = (d.float()[:, None] * scales).reshape(-1)  # (sub-blocks,)
    # Where the scale is stored as 0 the codes mean nothing, and the reference leaves those of its search.
    divided = torch.where(step == 0, x * inverse, x / step).round_().clamp_(CODE_MIN, CODE_MAX)
    # What counts as zeros, a sub-block or a whole super-block, is stored as zero bytes: code -32.
    zeros = (x.abs().amax(0) < _TINY) | (scale.view(-1, SUB_BLOCKS).abs().amax(1) < _TINY).repeat_interleave(SUB_BLOCKS)
    codes = divided.masked_fill(zeros, CODE_MIN)
    return Q6K(codes.t().to(torch.int8).reshape(-1, SUB_BLOCKS, SUB_BLOCK), d, scales)


def _eight_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    """The factor of each super-block, float16 (blocks,), and its scales as multiples of it, int8 (blocks, 16)."""
    largest = _peak(values.t())  # (blocks,): with its sign, the first of several
    live = ~(largest.abs() < _TINY)
    inverse = torch.where(live, torch.full_like(largest, -128) / largest, torch.zeros_like(largest))
    codes = (inverse[:, None] * values).round().clamp(max=127)
    return torch.where(live, 1 / inverse, torch.zeros_like(largest)).half(), codes.to(torch.int8)


def _peak(x: Tensor) -> Tensor:
    """Along the first dimension, the first of the values with the largest magnitude: x (n, groups) -> (groups,)."""
    high, low = x.amax(0), x.amin(0)
    peak = torch.where(high >= -low, high, low)
    tied = (high == -low).nonzero()[:, 0]
    if tied.numel():
        few = x[:, tied]
        peak[tied] = few.gather(0, few.abs().argmax(0, keepdim=True))[0]
    return peak


def _best_fit(x: Tensor) -> tuple[Tensor, Tensor]:
    """The scale of the best weighted fit and the factor its codes come from, two float32 (sub-blocks,).

    A fit's codes are x times a factor, rounded; its scale is the least-squares one over them, each weight weighing its
    square. A sub-block of zeros has scale 0. x: (16, sub-blocks), float32.
    """
    peak = _peak(x)
    square = x * x
    cube = square * x
    codes, product = torch.empty_like(x), torch.empty_like(x)
    scale = best = chosen = torch.zeros_like(peak)
    for tenths in _WIDTHS:
        width = torch.tensor(tenths, dtype=torch.float32) * 0.1 + -CODE_MIN
        inverse = -width.to(x.device) / peak
        torch.mul(x, inverse, out=codes).round_().clamp_(CODE_MIN, CODE_MAX)
        along = _sum(torch.mul(cube, codes, out=product))
        size = _sum(torch.mul(square, codes, out=product).mul_(codes))
        fitted = along / size
        # The first fit, the only one at whose time there is no chosen one yet, is taken as it is.
        wins = (size > 0) & (along * along > best * size) if tenths else torch.ones_like(size, dtype=torch.bool)
        fitted = fitted.masked_fill(size == 0, 0.0)
        scale = torch.where(wins, fitted, scale)
        best = torch.where(wins, fitted * along, best)
        chosen = torch.where(wins, inverse, chosen)
    return scale.masked_fill(peak.abs() < _TINY, 0.0), chosen


def _sum(x: Tensor) -> Tensor:
    """Sum over the 16 weights of each sub-block one after the other, since the order decides the last bit."""
    total = x[0].clone()
    for row in x[1:]:
        total += row
    return total
