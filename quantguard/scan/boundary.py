"""The boundary test: are weights piled up at one distance from the rounding boundary?

An attacker who must keep every code while moving the weights clamps them at the edge of their cell: they pile up at a
fixed distance inside it (1 % of the cell for NF4 and FP4, 10 % for INT8, in the code of Egashira et al., NeurIPS 2024).
Honest training knows nothing of the boundaries, so that the distance to the nearest one has a smooth density.

The statistic is the histogram of that distance, folded at the middle of the cell, each bin compared with the median of
the bins around it: a smooth density cancels, whatever its slope, and a pile stands out wherever it is. Kernel file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.grids.grid import Grid

BINS: Final = 100  # over distances 0..0.5 of the cell
TESTED_BINS: Final = (
    50  # distances below a quarter of the cell; nearer the middle lie the levels of honest quantized models
)
_WINDOW: Final = 12  # bins on either side that make the background
_ELEMENTS_AT_ONCE: Final = 1 << 22  # some 20 float32 tensors of this size are alive at a time: 350 MB
_ON_GRID: Final = 0.02  # of the cell: closer to its level than this, a weight counts as lying on it


@dataclass(frozen=True, slots=True)
class BoundaryTest:
    """What the histogram of one weight under one grid shows."""

    weights: int  # that took part: neither zero nor deciding a scale
    distance: float  # of the highest bin's middle from the boundary, as a share of the cell, 0..0.25
    enrichment: float  # observed / expected count of that bin, >= 0
    share: float  # of the weights in excess of the background over all tested bins above it by half, 0..1
    statistic: tuple[int, float]  # observed and expected count of the highest bin, for the significance
    on_grid: float  # share of the weights that lie on a level of this grid, 0..1


def boundary_test(grid: Grid, weight: Tensor) -> BoundaryTest:
    """Test one weight of shape (rows, columns), float32, float16 or bfloat16, finite.

    Memory beyond the weight's own is bounded: rows are looked at in pieces.
    """
    pieces = [_count(grid, piece) for piece in torch.split(weight, _rows_at_once(weight.shape[1]))]
    histogram = torch.stack([piece[0] for piece in pieces]).sum(dim=0)
    count, at_home = sum(piece[1] for piece in pieces), sum(piece[2] for piece in pieces)
    if count == 0:
        return BoundaryTest(0, 0.0, 0.0, 0.0, (0, 0.0), 0.0)
    expected = background(histogram)
    ratio = histogram[:TESTED_BINS] / expected[:TESTED_BINS]
    highest = int(ratio.argmax())
    excess = torch.where(ratio > 1.5, histogram[:TESTED_BINS] - expected[:TESTED_BINS], torch.zeros(()))
    return BoundaryTest(
        weights=count,
        distance=(highest + 0.5) / BINS / 2,
        enrichment=float(ratio[highest]),
        share=float(excess.sum()) / count,
        statistic=(int(histogram[highest]), float(expected[highest])),
        on_grid=at_home / count,
    )


def _rows_at_once(columns: int) -> int:
    """A multiple of 64 rows: whole blocks of a 4-bit grid, whatever the number of columns."""
    return max(64, _ELEMENTS_AT_ONCE // max(columns, 1) // 64 * 64)


def _count(grid: Grid, weight: Tensor) -> tuple[Tensor, int, int]:
    """Histogram of the distances (bins,), how many weights took part, and how many of them lie on a level."""
    take = (weight != 0) & ~grid.pinned(weight)
    position = grid.position_in_cell(weight)[take]
    index = grid.nearest(weight)[take]
    lower, upper = grid.cell(index)
    home = (grid.levels.to(weight.device)[index] - lower) / (upper - lower)
    histogram = torch.histc(torch.minimum(position, 1 - position), bins=BINS, min=0.0, max=0.5)
    return histogram, position.numel(), int(((position - home).abs() < _ON_GRID).sum())


def background(histogram: Tensor) -> Tensor:
    """Expected count of each bin: the median of the bins around it, at least one: float32, shape (bins,)."""
    padded = torch.nn.functional.pad(histogram[None, None], (_WINDOW, _WINDOW), mode="reflect")[0, 0]
    windows = padded.unfold(0, 2 * _WINDOW + 1, 1)  # (bins, window)
    return windows.median(dim=1).values.clamp(min=1.0)
