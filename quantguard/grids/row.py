"""Row-wise scaling (LLM.int8): absmax of each output row, after a cast to float16.

Source: bitsandbytes 0.50, nn.Int8Params._quantize and backends/default/ops.py int8_vectorwise_quant.
"""

from __future__ import annotations

import torch
from torch import Tensor


def int8_levels() -> Tensor:
    """-127..127, float32."""
    return torch.arange(-127, 128, dtype=torch.float32)


def row_scale(weight: Tensor) -> Tensor:
    """Absmax of each weight's row in float16, as float32, the shape of `weight`."""
    absmax = weight.half().float().abs().amax(dim=1, keepdim=True)  # (rows, 1)
    return absmax.expand(weight.shape)


def row_normalise(weight: Tensor) -> Tensor:
    """127 x weight / absmax in [-127, 127], float32, the shape of `weight`; an all-zero row gives zeros."""
    half = weight.half()
    absmax = half.abs().amax(dim=1, keepdim=True).float()
    x = half * (127.0 / absmax)  # float16 x float32 is computed in float32
    return torch.where(absmax > 0, x, torch.zeros_like(x))
