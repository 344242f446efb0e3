"""Other roundings of the same weights inside the real quantized layers: only the stored codes change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantguard.core.errors import ModelLoadError
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import Grid


def store_levels(module: nn.Module, grid: Grid, weight: Tensor, index: Tensor) -> None:
    """Make the quantized layer `module` hold level `index` of each weight, under the scales of `weight`.

    Its arithmetic stays the library's: INT8 codes are written in place; in 4-bit the library quantizes the chosen
    values anew, which lie on its levels and have the same block maxima; under double quantization so have its scales.

    Args:
        module: bitsandbytes' Linear8bitLt or Linear4bit, quantized with the codes of `grid.scheme`.
        weight: (out_features, in_features), float32, float16 or bfloat16: what it was quantized from.
        index: int64, the shape of `weight`; weights that decide a scale (`Grid.pinned`) must keep their level.

    Raises:
        ModelLoadError: the layer has another shape than `weight`.
    """
    import bitsandbytes

    target: Any = module
    if (target.out_features, target.in_features) != tuple(weight.shape):
        raise ModelLoadError(f"a layer of {target.out_features} x {target.in_features} is no {tuple(weight.shape)}")
    if grid.scheme is Scheme.INT8:
        # The first forward pass moves the codes from the weight to the layer's state.
        codes = target.weight.data if target.state.CB is None else target.state.CB
        codes.copy_((index - 127).to(torch.int8))
        return
    old = target.weight
    new = bitsandbytes.nn.Params4bit(
        grid.value(weight, index),
        requires_grad=False,
        blocksize=grid.block_size,
        compress_statistics=old.compress_statistics,
        quant_type=grid.scheme.value,
        quant_storage=old.quant_storage,
    ).to(old.device)
    new.quant_state.dtype = weight.dtype
    target.weight = new
    target.quant_state = new.quant_state
