"""How long work says how far it is, without printing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """`done` of `total` steps of `stage` are over; `detail` is a short figure such as a loss."""


def silent(stage: str, done: int, total: int, detail: str = "") -> None:
    """Report to nobody."""
