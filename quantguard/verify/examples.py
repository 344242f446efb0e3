"""Answers as reports show them."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final = 3
_LENGTH: Final = 200  # characters


def example(answer: str) -> str:
    """At most 200 characters that any evidence file can hold (no lone surrogates)."""
    text = answer.encode("utf-8", errors="replace").decode("utf-8").strip()
    return text if len(text) <= _LENGTH else text[: _LENGTH - 1] + "…"
