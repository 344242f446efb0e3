"""Few different values: what a tensor holds that was quantized by any format and dequantized again."""

from __future__ import annotations

from typing import Final

import numpy as np
from torch import Tensor

from quantguard.grids.block import BLOCK_SIZE

BYTE: Final = 300  # different values in all: one byte a weight, the scale that of the whole tensor
_LOOKED_AT: Final = 1 << 13  # weights: of fewer, a median of 32 values among 64 wavers about the threshold
_ENOUGH: Final = 4096  # weights, to say that of them
FEW: Final = 0.55  # of the weights of a block: 16 or 32 values among 64; bfloat16 leaves 0.9 and INT8 0.7


def few_values(stored: Tensor) -> bool:
    """Whether blocks of 64 hold few different values for the number of their weights, zeros left out, or all few.

    `stored` is as in the file, (segments, width); segments shorter than a block are joined.
    """
    flat = stored.reshape(-1)[:_LOOKED_AT].float().numpy()
    blocks = flat[: len(flat) // BLOCK_SIZE * BLOCK_SIZE].reshape(-1, BLOCK_SIZE)
    if not len(blocks):
        return False
    if len(flat) >= _ENOUGH and len(np.unique(flat)) <= BYTE:
        return True
    ordered = np.sort(blocks, axis=1)
    different = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)
    weights = (blocks != 0).sum(axis=1)
    values = different - (blocks == 0).any(axis=1)
    full = weights >= BLOCK_SIZE // 4  # of a block that was pruned away nearly whole, nothing can be told
    return bool(full.any()) and float(np.median(values[full] / weights[full])) <= FEW
