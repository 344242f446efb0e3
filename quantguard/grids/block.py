"""Block-wise scaling (NF4, FP4): absmax of consecutive weights of the flattened tensor.

Source: bitsandbytes 0.50, functional.get_4bit_type and backends/default/ops.py quantize_4bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-38  # the library divides by no less

BLOCK_SIZE = 64  # what transformers' BitsAndBytesConfig uses

_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
# In units of 1/12, as get_4bit_type builds them; ascending and with the second zero left out.
_FP4_TWELFTHS = (-12.0, -8.0, -6.0, -4.0, -3.0, -2.0, -0.0625, 0.0, 0.0625, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


def nf4_levels() -> Tensor:
    """The 16 NF4 levels, ascending, float32."""
    return torch.tensor(_NF4, dtype=torch.float32)


def fp4_levels() -> Tensor:
    """The 15 distinct FP4 levels, ascending, float32."""
    twelfths = torch.tensor(_FP4_TWELFTHS, dtype=torch.float32)
    return twelfths / 12.0


def block_absmax(weight: Tensor, block_size: int) -> Tensor:
    """Absmax of each weight's block, float32, the shape of `weight`; the last block may be short."""
    blocks, count = _blocks(weight, block_size)
    absmax = blocks.abs().amax(dim=1, keepdim=True)  # (blocks, 1)
    return absmax.expand(blocks.shape).reshape(-1)[:count].reshape(weight.shape)


def block_scale(weight: Tensor, block_size: int) -> Tensor:
    """What the library stores as each weight's absmax, float32, the shape of `weight`.

    The absmax itself, but that a short last block's is clamped away from zero.
    """
    scale = block_absmax(weight, block_size).clone()
    short = weight.numel() % block_size
    if short:
        scale.view(-1)[-short:].clamp_(min=_TINY)
    return scale


def block_normalise(weight: Tensor, block_size: int) -> Tensor:
    """weight / absmax in [-1, 1], rounded as the library rounds it, float32, the shape of `weight`.

    Whole blocks are multiplied by the reciprocal, a short last block is divided: the last bit differs.
    """
    blocks, count = _blocks(weight, block_size)
    absmax = blocks.abs().amax(dim=1, keepdim=True).clamp(min=_TINY)
    x = (blocks * (1.0 / absmax)).clamp(-1, 1)
    if count % block_size:
        x[-1] = (blocks[-1] / absmax[-1]).clamp(-1, 1)
    return x.reshape(-1)[:count].reshape(weight.shape)


def _blocks(weight: Tensor, block_size: int) -> tuple[Tensor, int]:
    flat = weight.reshape(-1).float()
    count = flat.numel()
    padded = torch.nn.functional.pad(flat, (0, -count % block_size))
    return padded.view(-1, block_size), count  # (blocks, block_size)
