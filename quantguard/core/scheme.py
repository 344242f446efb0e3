"""Quantization schemes, as the deployed library names them."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Scheme(Enum):
    """What bitsandbytes does to a linear weight when the model is loaded."""

    INT8 = "int8"  # LLM.int8: one scale per output row, 8-bit codes
    FP4 = "fp4"  # blocks of 64, 15 distinct levels
    NF4 = "nf4"  # blocks of 64, 16 levels
    FP4_DOUBLE = "fp4-double"  # FP4 whose scales are quantized to 8 bits too (bnb_4bit_use_double_quant)
    NF4_DOUBLE = "nf4-double"  # NF4 with such scales

    @property
    def codes(self) -> Scheme:
        """The scheme of the same codes whose scales are stored as they are. Scan and repair are about codes alone."""
        return _CODES.get(self, self)

    @property
    def double(self) -> bool:
        """Whether the scales are quantized too."""
        return self in _CODES


_CODES: Final = {Scheme.FP4_DOUBLE: Scheme.FP4, Scheme.NF4_DOUBLE: Scheme.NF4}
ROUNDINGS: Final = (Scheme.INT8, Scheme.FP4, Scheme.NF4)  # those that round weights differently
FULL_PRECISION: Final = "full"


def scheme_label(scheme: Scheme | None) -> str:
    """`None` is the model as stored, not quantized."""
    return FULL_PRECISION if scheme is None else scheme.value
