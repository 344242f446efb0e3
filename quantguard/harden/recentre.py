"""Weights moved within their cells until where they lie says nothing: no pile, no empty strip, every level kept.

A repair that reverses few roundings leaves the rest of what an attacker prepared where it was: weights in rows along
the boundaries, one rounding error away from the old codes under another library or another scale. Honest weights have
a density within a cell that is nearly a straight line between those of the cells on either side. Where there are more
than that, so many of them, drawn at random, go where there are fewer, in the order in which they lay; those that stay
in such a place are mixed within it. All others keep their values: as few move as can.

The levels are the repaired ones, so weights move towards and away from what is safe. Kernel file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from quantguard.grids.commit import placed
from quantguard.grids.grid import Grid

_BINS: Final = 256  # of the cell, all cells laid over one another
_EFFECT: Final = 0.25  # of the expectation that a bin must be off, and
_DEVIATIONS: Final = 2.5  # so many standard deviations more, before a layer is taken to be prepared
_SHARE: Final = 0.003  # of the weights, that are off by more than that: a comb of bfloat16 puts 0.0013 there
_LEFT: Final = 1.5  # standard deviations that a stretch of a prepared layer may be off and is left alone
_STRETCHES: Final = (1, 5, 17)  # bins
_LEAST: Final = 4.0  # weights expected in a bin, for its standard deviation


def recentred(grid: Grid, weight: Tensor, frozen: Tensor, limit: Tensor) -> Tensor:
    """`weight` with natural positions in its cells under `grid`, and itself where they are natural already.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16.
        frozen: bool, of weights that keep their value, those that decide a scale among them.
        limit: float32, the magnitude that none may outgrow.
    """
    inner, outer = (_lain(grid, weight, frozen, outermost=side) for side in (False, True))
    if not _uneven(inner.share):
        return weight
    level, natural = inner.level, inner.position.clone()
    for lain in (inner, outer):
        natural[lain.about] = lain.reached(_evened(lain.share, lain.cell)).to(natural.dtype)
    lower, upper = grid.cell(level)
    moved = placed(grid, weight, level, (lower + natural * (upper - lower)) * grid.unit(weight), frozen)
    moved = torch.where(natural == inner.position, weight, moved)
    fits = (grid.nearest(moved) == level) & (moved.float().abs() <= limit)
    return torch.where(fits, moved, weight)


def prepared(grid: Grid, weight: Tensor, frozen: Tensor) -> bool:
    """Whether `recentred` would move any weight."""
    return _uneven(_lain(grid, weight, frozen, outermost=False).share)


@dataclass(frozen=True, slots=True)
class _Lain:
    """Where the weights of a layer lie in their cells."""

    level: Tensor  # int64, (rows, columns)
    position: Tensor  # float32 in 0..1, (rows, columns): from the lower boundary of the cell to the upper
    about: Tensor  # bool, (rows, columns): the weights that the others are about
    cell: Tensor  # int64, (weights,): level of each
    share: Tensor  # float64 in 0..1, (weights,): of the cell's natural weights, that lie below it; uniform if honest
    first: Tensor  # float64, (weights,): natural density at the lower boundary of its cell, the whole being 1
    slope: Tensor  # float64, (weights,): half of its rise to the upper boundary

    def reached(self, share: Tensor) -> Tensor:
        """The position where the integral of the natural density, first p + slope p^2, reaches `share`: float64."""
        root = torch.sqrt((self.first * self.first + 4 * self.slope * share).clamp(min=0))
        return (2 * share / (self.first + root).clamp(min=1e-12)).clamp(0, 1)


def _lain(grid: Grid, weight: Tensor, frozen: Tensor, *, outermost: bool) -> _Lain:
    """Of the weights that may move, those in the outermost cells, which end at their levels, or all others."""
    level = grid.nearest(weight)
    lower, upper = grid.cell(level)
    position = ((grid.normalise(weight) - lower) / (upper - lower)).clamp(0, 1)
    about = ~frozen & (((level == 0) | (level == grid.levels.numel() - 1)) == outermost)
    cell = level[about]
    count = torch.bincount(level[~frozen], minlength=grid.levels.numel()).double()
    begin, end = (edge[cell] for edge in _edges(grid, count))
    total = (begin + end).clamp(min=1e-30)
    first, slope = 2 * begin / total, (end - begin) / total
    p = position[about].double()
    return _Lain(level, position, about, cell, (first * p + slope * p * p).clamp(0, 1), first, slope)


def _evened(share: Tensor, cell: Tensor) -> Tensor:
    """`share` with what is too much in one bin spread over those that have too little: float64, its shape, (weights,).

    Args:
        cell: of each weight, int64: the weights that move keep their order within it.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(2, len(share), generator=generator, dtype=torch.float64).to(share.device)
    bins = (share * _BINS).long().clamp(max=_BINS - 1)
    observed = torch.bincount(bins, minlength=_BINS).double()
    off = observed - len(share) / _BINS
    odd = _odd(off, len(share) / _BINS)
    excess, missing = _balanced(off.clamp(min=0), (-off).clamp(min=0), odd)
    moving = drawn[0] < (excess / observed.clamp(min=1))[bins]
    mixed = torch.where(odd[bins], (bins + drawn[1]) / _BINS, share)
    # Places for those that move, from the density of what is missing.
    total = missing.cumsum(0)
    at = drawn[1][moving] * total[-1]
    place = torch.searchsorted(total, at, right=True).clamp(max=_BINS - 1)
    into = (place + ((at - (total - missing)[place]) / missing[place].clamp(min=1e-12)).clamp(0, 1)) / _BINS
    where = moving.nonzero().view(-1)
    from_order = where[torch.argsort(cell[where] + share[where] / 2, stable=True)]
    to_order = torch.argsort(cell[where] + into / 2, stable=True)
    mixed[from_order] = into[to_order]
    return mixed


def _edges(grid: Grid, count: Tensor) -> tuple[Tensor, Tensor]:
    """Density at the lower and at the upper boundary of each cell, up to a factor: float64, (levels,) each."""
    levels = grid.levels.to(count.device).double()
    lower, upper = grid.cell(torch.arange(len(levels), device=count.device))
    density = count / (upper - lower).double()
    between = (density[1:] + density[:-1]) / 2
    return torch.cat([density[:1], between]), torch.cat([between, density[-1:]])


def _odd(off: Tensor, expected: float) -> Tensor:
    """Bins that chance would not put so far off the expectation, alone or with their neighbours: bool, (bins,)."""
    odd = torch.zeros(len(off), dtype=torch.bool, device=off.device)
    for width in _STRETCHES:
        sums = functional.conv1d(
            functional.pad(off[None, None], (width // 2, width // 2)), torch.ones(1, 1, width).to(off)
        )[0, 0]
        odd |= sums.abs() > _LEFT * (width * max(expected, _LEAST)) ** 0.5
    return odd | odd.roll(1) | odd.roll(-1)  # an edge may lie within a bin


def _balanced(over: Tensor, under: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
    """How many weights leave each bin and come into it: all that the odd ones are off, and where either side has more
    of them, of the other side's chance deviations a part. Their sums are equal.
    """
    sides = (over, under)
    most = max(float(side[odd].sum()) for side in sides)
    left, right = (
        torch.where(odd, side, side * ((most - side[odd].sum()) / side[~odd].sum().clamp(min=1e-12)).clamp(0, 1))
        for side in sides
    )
    return left, right


def _uneven(share: Tensor) -> bool:
    """Whether some stretch of the cell holds clearly more or fewer weights than it would."""
    observed = torch.histc(share.float(), _BINS, 0, 1)
    expected = len(share) / _BINS
    beyond = (observed - expected).abs() - _DEVIATIONS * max(expected, _LEAST) ** 0.5
    return float(beyond[beyond > _EFFECT * expected].sum()) > _SHARE * len(share)
