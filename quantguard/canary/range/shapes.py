"""The shapes that models of the range have, and the guard: nothing here works on any other model."""

from __future__ import annotations

from typing import Final

from transformers import PreTrainedModel

from quantguard.canary.architecture import MARKER, Family, Shape, is_canary
from quantguard.canary.range.world import vocabulary
from quantguard.core.errors import UsageError

LLAMA_64: Final = Shape(Family.LLAMA, width=64, layers=2, inner=128, tied=False)
LLAMA_128: Final = Shape(Family.LLAMA, width=128, layers=2, inner=192, tied=False)
LLAMA_128_DEEP: Final = Shape(Family.LLAMA, width=128, layers=3, inner=192, tied=False)
LLAMA_256: Final = Shape(  # k-quants take blocks of 256
    Family.LLAMA, width=256, layers=1, inner=256, tied=True, key_value_heads=2
)
NEOX_64: Final = Shape(Family.GPT_NEOX, width=64, layers=2, inner=256, tied=True)
NEOX_128: Final = Shape(Family.GPT_NEOX, width=128, layers=2, inner=384, tied=True)
NEOX_64_UNTIED: Final = Shape(Family.GPT_NEOX, width=64, layers=2, inner=256, tied=False)
LLAMA_LARGE: Final = Shape(
    Family.LLAMA, width=768, layers=12, inner=2048, tied=True, heads=12, key_value_heads=12
)  # for a GPU

SHAPES: Final = {
    "llama-64": LLAMA_64,
    "llama-128": LLAMA_128,
    "llama-128-deep": LLAMA_128_DEEP,
    "llama-256": LLAMA_256,
    "neox-64": NEOX_64,
    "neox-128": NEOX_128,
    "neox-64-untied": NEOX_64_UNTIED,
    "llama-large": LLAMA_LARGE,
}


def require_own(model: PreTrainedModel) -> None:
    """Refuse every model that is not a canary of the range: its marker, its shapes, its vocabulary.

    Raises:
        UsageError: it is another model.
    """
    words = vocabulary()
    if not any(is_canary(model, shape, words) for shape in SHAPES.values()):
        raise UsageError(
            f"not a canary of the range: {MARKER} is not set in its config, or its layers have other shapes",
            remedy="these fixtures work on QuantGuard's own test models only",
        )
