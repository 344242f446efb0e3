"""Quantization schemes, as the deployed library names them."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Scheme(Enum):
    """What bitsandbytes does to a linear weight when the model is loaded."""

    INT8 = "int8"  # LLM.int8: one scale per output row, 8-bit codes
    FP4 = "fp4"  # blocks of 64, 15 distinct levels
    NF4 = "nf4"  # blocks of 64, 16 levels


FULL_PRECISION: Final = "full"


def scheme_label(scheme: Scheme | None) -> str:
    """`None` is the model as stored, not quantized."""
    return FULL_PRECISION if scheme is None else scheme.value
