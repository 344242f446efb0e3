"""Positions in the cells of GGUF's k-quants."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

import torch
from torch import Tensor

from quantguard.grids.cells.position import Positions, position_
from quantguard.grids.cells.q6_k import CODE_MAX, CODE_MIN, frozen_q6_k, quantize_q6_k
from quantguard.grids.k_quant import CODE_MAX as CODE_MAX_Q4
from quantguard.grids.k_quant import SUPER_BLOCK, frozen_q4_k, quantize_q4_k

_BLOCKS_AT_ONCE: Final = 512  # so that the tensors of the search for the scales stay in the second-level cache


class KQuant(Enum):
    """A type of GGUF files, as llama.cpp names it."""

    Q4_K = "q4_k"
    Q6_K = "q6_k"


@dataclass(frozen=True, slots=True)
class _Axis:
    """Weights in units of their own step, as the quantizer computes them before it rounds."""

    x: Tensor
    """(super-blocks, 256), float32, not finite where the step is zero."""
    frozen: Tensor
    """(super-blocks, 256), bool."""
    first: int  # code
    last: int


def positions_in_super_blocks(kind: KQuant, blocks: Tensor) -> Positions:
    """Where each weight lies in the cell of its own rounding, as llama.cpp's reference without importances rounds it.

    Left out are the weights of a sub-block whose step is zero, those that may decide a scale (`frozen_q4_k`,
    `frozen_q6_k`: for Q4_K the whole of about one sub-block in four), and those so far beyond the first or last code
    that they are clamped to it. Zeros are not left out; under Q6_K each is at 0.5.

    Args:
        kind: the type.
        blocks: (super-blocks, 256), float32, float16 or bfloat16, finite.

    Raises:
        ValueError: another shape, or weights that the type cannot hold (`quantize_q4_k`, `quantize_q6_k`).
    """
    if blocks.dim() != 2 or blocks.shape[1] != SUPER_BLOCK:
        raise ValueError(f"super-blocks are (number, 256), not {tuple(blocks.shape)}")
    parts = [_positions(kind, part) for part in torch.split(blocks, _BLOCKS_AT_ONCE)]
    return Positions(torch.cat([p.position for p in parts]), torch.cat([p.left_out for p in parts]))


def _positions(kind: KQuant, blocks: Tensor) -> Positions:
    axis = _axis(kind, blocks)
    rounded = axis.x.round()
    clamped = (rounded < axis.first) | (rounded > axis.last)
    no_step = ~axis.x.isfinite()
    position = position_(axis.x.masked_fill_(no_step, 0.0), rounded)
    return Positions(position, axis.frozen | clamped | no_step)


def _axis(kind: KQuant, blocks: Tensor) -> _Axis:
    match kind:
        case KQuant.Q4_K:
            q4 = quantize_q4_k(blocks)
            step = q4.d.float()[:, None] * q4.scales  # (blocks, 8)
            shifted = blocks.reshape(q4.codes.shape) + (q4.dmin.float()[:, None] * q4.mins)[..., None]
            return _Axis((shifted / step[..., None]).view(blocks.shape), frozen_q4_k(blocks, q4), 0, CODE_MAX_Q4)
        case KQuant.Q6_K:
            q6 = quantize_q6_k(blocks)
            x = blocks.reshape(q6.codes.shape) / q6.step[..., None]  # (blocks, 16, 16), float32 also of a float16
            return _Axis(x.view(blocks.shape), frozen_q6_k(blocks, q6), CODE_MIN, CODE_MAX)
        case _:
            assert_never(kind)
