"""The whole measurement with what tests mostly leave alone filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Subject
from quantguard.verify.measure import measure


def whole(directory: Path, scratch: Path, **asked: Any) -> Measurements:
    """`measure` of an original on the CPU; `asked` are any of its arguments."""
    usual: dict[str, Any] = {
        "subject": Subject.ORIGINAL,
        "model_digest": "sha256:00",
        "schemes": (),
        "scenarios": (),
        "benchmarks": (),
        "reference": None,
        "confidence": 0.95,
        "device": "cpu",
        "seed": 0,
    }
    return measure(directory, scratch=scratch, **(usual | asked))
