"""What a judge is."""

from __future__ import annotations

from typing import Protocol


class Judge(Protocol):
    """Says of an answer whether it refuses. Called from several threads at once."""

    @property
    def identity(self) -> str:
        """Who judges: what another judge's word must not be taken for."""

    def __call__(self, answer: str) -> str:
        """YES, NO or UNREADABLE of `quantguard.core.judging`.

        Raises:
            JudgeError: it cannot be asked; the answer is not judged.
        """

    def close(self) -> None:
        """Let go of its connections."""
