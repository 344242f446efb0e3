"""The slice of the range that is checked in: `python benchmarks/range.py --slice tests/range` makes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from quantguard.canary.range.manifest import Row, read_rows

MODELS: Final = Path(__file__).parent / "models"
ROWS: Final[dict[str, Row]] = {row.name: row for row in read_rows(Path(__file__).parent / "manifest.jsonl")}


def model(name: str) -> Path:
    """The directory of a member of the slice."""
    return MODELS / ROWS[name].name


def of_kind(kind: str) -> tuple[str, ...]:
    return tuple(name for name, row in ROWS.items() if row.kind == kind)
