"""How the error of a foreign library is quoted."""

from __future__ import annotations

from typing import Final

_LENGTH: Final = 300  # characters


def said(error: BaseException) -> str:
    """Type and first line of `error`, cut short: such messages quote the model's own text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:_LENGTH] if lines else 'no message'}"
