"""Q4_K, the 4-bit k-quant of GGUF files: scales of 32 weights that are themselves quantized, 256 weights at a time.

Words. A *super-block* is 256 consecutive weights of a row, in 8 *sub-blocks* of 32. A sub-block has a 4-bit code per
weight, a 6-bit scale and a 6-bit min; a super-block has two float16 factors, d for the scales and dmin for the mins. A
weight is given back as d x scale x code - dmin x min.

Unlike in the absmax schemes no single weight decides a scale: it comes from a search over weighted least-squares fits,
so that every weight of a sub-block has a say. Arithmetic is that of llama.cpp's quantize_row_q4_K_ref (which
llama-quantize runs where it has no importance matrix) in its order and precision, every product and sum rounded to
float32: a build of it that fuses them, or an importance matrix, gives other codes.

Source: llama.cpp, ggml/src/ggml-quants.c (quantize_row_q4_K_ref, make_qkx2_quants), ggml-common.h (block_q4_K).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

SUPER_BLOCK: Final = 256  # weights that share d and dmin
SUB_BLOCK: Final = 32  # weights that share a scale and a min
SUB_BLOCKS: Final = SUPER_BLOCK // SUB_BLOCK
CODE_MAX: Final = 15  # 4 bits
SCALE_MAX: Final = 63  # 6 bits, scales and mins alike
BLOCK_BYTES: Final = 2 + 2 + 12 + SUPER_BLOCK // 2  # d, dmin, scales and mins, codes

_STEPS = 21  # fits tried, their code ranges 14.0, 14.1 .. 16.0


@dataclass(frozen=True, slots=True)
class Q4K:
    """A quantized weight, its super-blocks in the order of the flattened weight."""

    codes: Tensor
    """(blocks, 8, 32), uint8, 0..15."""
    d: Tensor
    """(blocks,), float16, >= 0, finite."""
    dmin: Tensor
    """(blocks,), float16, >= 0, finite."""
    scales: Tensor
    """(blocks, 8), uint8, 0..63."""
    mins: Tensor
    """(blocks, 8), uint8, 0..63."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """x ~ scale x code + low, for all sub-blocks at once."""

    codes: Tensor
    """(32, sub-blocks), float32, the integers 0..15."""
    scale: Tensor
    """(sub-blocks,), float32."""
    low: Tensor
    """(sub-blocks,), float32, <= 0: its negative is the min that is stored."""
    error: Tensor
    """(sub-blocks,), float32, weighted sum of squares."""


def quantize_q4_k(weight: Tensor) -> Q4K:
    """What llama.cpp's reference stores for `weight`.

    Needs some ten float32 copies of `weight`: give it a few rows at a time where that matters.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, finite, columns a multiple of 256.

    Raises:
        ValueError: another shape, or a super-block whose d or dmin is no finite float16 (a weight that is NaN or
            infinite, or weights of more than some millions).
    """
    if weight.dim() != 2 or weight.shape[1] % SUPER_BLOCK:
        raise ValueError(f"Q4_K takes (rows, columns) with columns a multiple of 256, not {tuple(weight.shape)}")
    x = weight.float().reshape(-1, SUB_BLOCK).t().contiguous()  # (32, sub-blocks)
    fit = _best_fit(x)
    d, scales = _six_bits(fit.scale.view(-1, SUB_BLOCKS))  # (blocks,), (blocks, 8)
    dmin, mins = _six_bits(-fit.low.view(-1, SUB_BLOCKS))
    if not bool((d.isfinite() & dmin.isfinite()).all()):
        raise ValueError("a weight is not finite, or too large for the float16 scales of Q4_K")
    step = (d.float()[:, None] * scales).reshape(-1)  # (sub-blocks,)
    shift = (dmin.float()[:, None] * mins).reshape(-1)
    nearest = ((x + shift) / step).round().clamp(0, CODE_MAX)
    # Where the scale is stored as 0 the codes mean nothing, and the reference leaves those of its search.
    codes = torch.where(step == 0, fit.codes, nearest)
    return Q4K(codes.t().to(torch.uint8).reshape(-1, SUB_BLOCKS, SUB_BLOCK), d, dmin, scales, mins)


def dequantize_q4_k(q: Q4K, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """d x scale x code - dmin x min, as float32 of `shape`, which holds as many weights as `q`.

    Bit for bit what the package gguf gives back for `pack_q4_k(q)`.
    """
    step = q.d.float()[:, None] * q.scales  # (blocks, 8)
    shift = q.dmin.float()[:, None] * q.mins
    return (step[..., None] * q.codes - shift[..., None]).reshape(shape)


def pack_q4_k(q: Q4K) -> Tensor:
    """The bytes of a GGUF file (block_q4_K, little-endian): (blocks, 144), uint8.

    d, dmin; 12 bytes of scales and mins, the first four of each in the low six bits of bytes 0..3 and 4..7, the last
    four as low nibbles (scale, then min) in bytes 8..11 and as top two bits of bytes 0..7; then, for each pair of
    sub-blocks, 32 bytes with the codes of the first in the low nibble and of the second in the high one.
    """
    factors = torch.stack([q.d, q.dmin], dim=1).view(torch.uint8)  # (blocks, 4)
    first, last = q.scales[:, :4], q.scales[:, 4:]
    first_min, last_min = q.mins[:, :4], q.mins[:, 4:]
    six = torch.cat(
        [
            first | (last >> 4 << 6),
            first_min | (last_min >> 4 << 6),
            (last & 15) | ((last_min & 15) << 4),
        ],
        dim=1,
    )  # (blocks, 12)
    nibbles = q.codes[:, 0::2] | (q.codes[:, 1::2] << 4)  # (blocks, 4, 32)
    return torch.cat([factors, six, nibbles.flatten(1)], dim=1)


def frozen_q4_k(weight: Tensor, q: Q4K) -> Tensor:
    """True where moving a weight may move scales: bool, the shape of `weight`.

    The whole of every sub-block with its super-block's largest 6-bit scale or min, since it decides d or dmin or could
    come to; and the largest and smallest weights of every other sub-block, ties included, between which the search for
    its scale is stretched ("Mind the Gap", ICML 2025, which freezes one sub-block where several tie). A super-block
    without mins is frozen whole.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, columns a multiple of 256.
        q: `quantize_q4_k(weight)`.
    """
    deciding = (q.scales == q.scales.amax(1, keepdim=True)) | (q.mins == q.mins.amax(1, keepdim=True))  # (blocks, 8)
    x = weight.reshape(-1, SUB_BLOCKS, SUB_BLOCK)
    extreme = (x == x.amax(2, keepdim=True)) | (x == x.amin(2, keepdim=True))
    return (deciding[..., None] | extreme).reshape(weight.shape)


def interval_q4_k(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds within which an attacker may move each weight: two float32 tensors of the shape of `weight`.

    From the weight to what Q4_K gives back for it; a frozen weight (`frozen_q4_k`) has both bounds at its own value
    ("Mind the Gap", ICML 2025). A heuristic: the search for the scales sees every weight, so that weights moved within
    their intervals mostly, and not always, quantize to the same values.

    Raises:
        ValueError: as `quantize_q4_k`.
    """
    q = quantize_q4_k(weight)
    w = weight.float()
    given_back = torch.where(frozen_q4_k(weight, q), w, dequantize_q4_k(q, weight.shape))
    return torch.minimum(w, given_back), torch.maximum(w, given_back)


def _six_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    """The factor of each super-block, float16 (blocks,), and its values as multiples of it, uint8 (blocks, 8)."""
    largest = values.amax(1).clamp(min=0).abs()  # (blocks,); never -0.0, whose bytes differ
    full = torch.full_like(largest, SCALE_MAX)
    inverse = torch.where(largest > 0, full / largest, torch.zeros_like(largest))
    codes = (inverse[:, None] * values).round().to(torch.int32)
    # A negative value (the fit of an almost constant sub-block) wraps round in the reference's unsigned byte.
    return (largest / full).half(), codes.bitwise_and(255).clamp(max=SCALE_MAX).to(torch.uint8)


def _best_fit(x: Tensor) -> _Fit:
    """The fit with the smallest weighted error, the earliest of several. x: (32, sub-blocks), float32."""
    low = x.amin(0).clamp(max=0)  # (sub-blocks,): zero is always within reach
    span = x.amax(0) - low
    # torch's float32 square root was off by a bit in a fifth of all values on x86-64; float64's is right once rounded.
    rms = (_sum(x * x) / SUB_BLOCK).double().sqrt().float()  # (sub-blocks,)
    cost = rms + x.abs()  # (32, sub-blocks): what an error of each weight weighs
    inverse = torch.full_like(span, CODE_MAX) / span  # a Python number would be divided in two roundings
    best = _measured(x, cost, _codes(x, low, inverse), 1 / inverse, low)
    sum_w, sum_x = _sum(cost), _sum(cost * x)
    tenths = torch.arange(_STEPS, dtype=torch.float32, device=x.device) * 0.1
    for width in tenths - 1 + CODE_MAX:
        # Codes start from the best low so far: the reference's search goes on from what it has found.
        codes = _codes(x, best.low, width / (x.amax(0) - best.low))
        best = _better(best, _least_squares(x, cost, codes, sum_w, sum_x))
    flat = span == 0
    zero = torch.zeros_like(span)
    # A span too small to divide by leaves NaN among the codes; its scale is zero, and they mean nothing.
    codes = torch.where(flat, zero, best.codes.nan_to_num(0.0))
    return _Fit(codes, torch.where(flat, zero, best.scale), torch.where(flat, low, best.low), best.error)


def _codes(x: Tensor, low: Tensor, inverse: Tensor) -> Tensor:
    """Nearest codes, half to even, (32, sub-blocks), float32."""
    return (inverse * (x - low)).round().clamp(0, CODE_MAX)


def _least_squares(x: Tensor, cost: Tensor, codes: Tensor, sum_w: Tensor, sum_x: Tensor) -> _Fit:
    """Scale and low of the weighted least-squares line through x over `codes`, its low at most zero."""
    weighted = cost * codes  # (32, sub-blocks)
    sum_l, sum_l2, sum_xl = _sum(weighted), _sum(weighted * codes), _sum(weighted * x)
    determinant = sum_w * sum_l2 - sum_l * sum_l
    low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
    scale = torch.where(low > 0, sum_xl / sum_l2, (sum_w * sum_xl - sum_x * sum_l) / determinant)
    fit = _measured(x, cost, codes, scale, torch.where(low > 0, torch.zeros_like(low), low))
    never = torch.full_like(fit.error, torch.inf)
    return _Fit(fit.codes, fit.scale, fit.low, torch.where(determinant > 0, fit.error, never))


def _measured(x: Tensor, cost: Tensor, codes: Tensor, scale: Tensor, low: Tensor) -> _Fit:
    off = scale * codes + low - x  # (32, sub-blocks)
    return _Fit(codes, scale, low, _sum(cost * (off * off)))


def _better(one: _Fit, other: _Fit) -> _Fit:
    """Per sub-block `other` where its error is smaller, else `one`."""
    wins = other.error < one.error  # (sub-blocks,)
    return _Fit(
        torch.where(wins, other.codes, one.codes),
        torch.where(wins, other.scale, one.scale),
        torch.where(wins, other.low, one.low),
        torch.where(wins, other.error, one.error),
    )


def _sum(x: Tensor) -> Tensor:
    """Sum over the 32 weights of each sub-block one after the other, since the order decides the last bit."""
    total = x[0].clone()
    for row in x[1:]:
        total += row
    return total
