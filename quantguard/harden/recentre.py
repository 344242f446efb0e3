"""Weights moved within their cells until where they lie says nothing: no pile, no empty strip, every level kept.

A repair that reverses few roundings leaves the rest of what an attacker prepared where it was: weights in rows along
the boundaries, one rounding error away from the old codes under another library or another scale. Here the order of
the weights in a cell is kept, and their distances are made those of honest weights, whose density within a cell is
nearly a straight line between those of the cells on either side. Ties, which is what a pile is, are broken at random.

The levels are the repaired ones, so weights move towards and away from what is safe. Kernel file.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from quantguard.grids.commit import placed
from quantguard.grids.grid import Grid

_BINS: Final = 256  # of the cell, all cells laid over one another
_EFFECT: Final = 0.25  # of the expectation that a bin must be off, and
_DEVIATIONS: Final = 2.5  # so many standard deviations more
_LEAST: Final = 4.0  # weights expected in a bin, for its standard deviation


def recentred(grid: Grid, weight: Tensor, frozen: Tensor, limit: Tensor) -> Tensor:
    """`weight` with natural positions in its cells under `grid`, and itself where they are natural already.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16.
        frozen: bool, of weights that keep their value, those that decide a scale among them.
        limit: float32, the magnitude that none may outgrow.
    """
    level = grid.nearest(weight)
    lower, upper = grid.cell(level)
    position = ((grid.normalise(weight) - lower) / (upper - lower)).clamp(0, 1)  # (rows, columns)
    natural = _natural(grid, level, position, ~frozen)
    inner = ~frozen & (level > 0) & (level < grid.levels.numel() - 1)  # the outermost cells end at their levels
    if not _prepared(position[inner], natural[inner]):
        return weight
    moved = placed(grid, weight, level, (lower + natural * (upper - lower)) * grid.unit(weight), frozen)
    fits = (grid.nearest(moved) == level) & (moved.float().abs() <= limit)
    return torch.where(fits, moved, weight)


def _natural(grid: Grid, level: Tensor, position: Tensor, free: Tensor) -> Tensor:
    """The position that each free weight would have: float32, the shape of `position`."""
    generator = torch.Generator().manual_seed(0)
    places = free.view(-1).nonzero().view(-1)
    places = places[torch.randperm(len(places), generator=generator).to(places.device)]  # ties are broken by this
    cell, where = level.view(-1)[places], position.reshape(-1)[places].double()
    order = torch.argsort(cell + where / 2, stable=True)
    places, cell = places[order], cell[order]
    count = torch.bincount(cell, minlength=grid.levels.numel()).double()
    begin, end = (edge[cell] for edge in _edges(grid, count))
    rank = torch.arange(len(cell), device=cell.device) - (count.cumsum(0) - count)[cell]
    # Anywhere within its rank's part: regular distances would keep all of a cell of few weights off its boundaries.
    share = (rank + torch.rand(len(rank), generator=generator).to(rank.device)) / count[cell]
    # Where the integral of a density that falls or rises from `begin` to `end` over the cell reaches the share.
    total = (begin + end).clamp(min=1e-30)
    first, slope = 2 * begin / total, (end - begin) / total
    reached = 2 * share / (first + torch.sqrt((first * first + 4 * slope * share).clamp(min=0))).clamp(min=1e-12)
    natural = position.reshape(-1).clone()
    natural[places] = reached.clamp(0, 1).to(natural.dtype)
    return natural.view(position.shape)


def _edges(grid: Grid, count: Tensor) -> tuple[Tensor, Tensor]:
    """Density at the lower and at the upper boundary of each cell, up to a factor: float64, (levels,) each."""
    levels = grid.levels.to(count.device).double()
    lower, upper = grid.cell(torch.arange(len(levels), device=count.device))
    density = count / (upper - lower).double()
    between = (density[1:] + density[:-1]) / 2
    return torch.cat([density[:1], between]), torch.cat([between, density[-1:]])


def _prepared(position: Tensor, natural: Tensor) -> bool:
    """Whether some stretch of the cell holds clearly more or fewer weights than it would."""
    observed, expected = (torch.histc(values.float(), _BINS, 0, 1) for values in (position, natural))
    off = (observed - expected).abs() - _EFFECT * expected
    return bool((off > _DEVIATIONS * expected.clamp(min=_LEAST).sqrt()).any())
