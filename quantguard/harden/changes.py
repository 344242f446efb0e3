"""What a method changed: the share of the roundings, and where one layer's weights lay before and lie now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from quantguard.core.hardening import MovedPositions
from quantguard.core.layer import POSITION_BINS
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import Grid, grid_for
from quantguard.harden.pieces import row_pieces

Counts = Mapping[str, Mapping[Scheme, int]]  # parameter -> changed roundings under each scheme


def changed_roundings(
    schemes: Sequence[Scheme], original: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Counts:
    """How many weights of each parameter have another level than the original had, under each of `schemes`."""
    counts = {}
    for name, before in original.items():
        after = weights[name].to(before.device)
        counts[name] = {scheme: _count(grid_for(scheme), before, after) for scheme in schemes}
    return counts


def flipped_shares(counts: Counts, weights: int) -> tuple[tuple[Scheme, float], ...]:
    """Share of all `weights` (their number) whose rounding was changed, 0..1, by scheme."""
    schemes = next(iter(counts.values()))
    return tuple((scheme, sum(of[scheme] for of in counts.values()) / weights) for scheme in schemes)


def moved_positions(
    counts: Counts, original: Mapping[str, Tensor], weights: Mapping[str, Tensor], stored: Mapping[str, str]
) -> tuple[MovedPositions, ...]:
    """Of the parameter with the most changed roundings, under each scheme; empty where none was changed.

    Args:
        stored: parameter -> its name in the files.
    """
    most = max(counts, key=lambda name: sum(counts[name].values()))
    if not any(counts[most].values()):
        return ()
    before = original[most]
    after = weights[most].to(before.device)
    return tuple(_moved(stored[most], grid_for(scheme), before, after) for scheme in counts[most])


def _count(grid: Grid, before: Tensor, after: Tensor) -> int:
    return sum(int(_flipped(grid, before[rows], after[rows]).sum()) for rows in row_pieces(*before.shape))


def _flipped(grid: Grid, before: Tensor, after: Tensor) -> Tensor:
    """Bool, the shape of both."""
    return grid.nearest(before) != grid.nearest(after)


def _moved(layer: str, grid: Grid, before: Tensor, after: Tensor) -> MovedPositions:
    pieces = [_histograms(grid, before[rows], after[rows]) for rows in row_pieces(*before.shape)]
    sums = torch.stack(pieces).sum(dim=0)  # (4, POSITION_BINS)
    return MovedPositions(layer, grid.scheme, *(tuple(each) for each in sums.tolist()))


def _histograms(grid: Grid, before: Tensor, after: Tensor) -> Tensor:
    """Of all free weights before and after, and of the flipped ones before and after: int64 (4, POSITION_BINS)."""
    free = ~grid.pinned(before)
    flipped = _flipped(grid, before, after) & free
    bins = [_bins(grid, weight) for weight in (before, after)]
    counted = [torch.bincount(bins[side][mask], minlength=POSITION_BINS) for mask in (free, flipped) for side in (0, 1)]
    return torch.stack(counted)


def _bins(grid: Grid, weight: Tensor) -> Tensor:
    """The bin in which each weight lies: int64 0..POSITION_BINS - 1, the shape of `weight`.

    As the scan counts, from the boundary to the level and from there to the other boundary: a level is seldom quite in
    the middle of its cell.
    """
    index = grid.nearest(weight)
    lower, upper = grid.cell(index)
    level = grid.levels.to(weight.device)[index]
    x = grid.normalise(weight)
    tiny = torch.finfo(x.dtype).tiny  # the outermost levels lie at the end of their cells
    rising = (x - lower) / (level - lower).clamp(min=tiny) / 2
    falling = 1 - (upper - x) / (upper - level).clamp(min=tiny) / 2
    position = torch.where(x < level, rising, falling)
    return (position * POSITION_BINS).clamp(0, POSITION_BINS - 1).long()
