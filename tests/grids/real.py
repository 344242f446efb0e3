"""What real bitsandbytes does to a weight: the other side of every law in this folder."""

from __future__ import annotations

from typing import assert_never

import bitsandbytes as bnb
import torch
from bitsandbytes import functional
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from torch import Tensor

from quantguard.core.scheme import Scheme


def round_trip(scheme: Scheme, weight: Tensor, block_size: int = 64) -> Tensor:
    """`weight` quantized by the library and given back in float32."""
    match scheme:
        case Scheme.NF4 | Scheme.FP4:
            packed, state = functional.quantize_4bit(weight, blocksize=block_size, quant_type=scheme.value)
            # The library's plain torch implementation: its CPU kernel mixes up blocks where a row is not whole blocks
            # (test_the_cpu_kernel_dequantizes_rows_of_partial_blocks_wrongly).
            flat = packed.reshape(-1)
            restored = _dequantize_4bit_compute(
                flat, state.absmax, state.code, block_size, tuple(weight.shape), torch.float32
            )
            assert isinstance(restored, Tensor)
            return restored
        case Scheme.INT8:
            quantized = bnb.nn.Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False)._quantize("cpu")
            restored = functional.int8_vectorwise_dequant(quantized.CB, quantized.SCB)
            assert isinstance(restored, Tensor)
            return restored
        case Scheme.NF4_DOUBLE | Scheme.FP4_DOUBLE:
            raise ValueError("grids are about codes: double quantization has those of its scheme without it")
        case _:
            assert_never(scheme)
