"""Large layers a piece at a time: rows have no part in one another, and pieces end where blocks of the grids do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from quantguard.grids.block import BLOCK_SIZE

PIECE: Final = 1 << 22  # weights


def row_pieces(rows: int, columns: int, size: int | None = None) -> Iterator[slice]:
    """Consecutive rows of about `size` (PIECE) weights together, and no fewer than a whole number of blocks take."""
    aligned = BLOCK_SIZE // math.gcd(BLOCK_SIZE, columns)
    several = max(1, (PIECE if size is None else size) // (columns * aligned)) * aligned
    return (slice(start, start + several) for start in range(0, rows, several))
