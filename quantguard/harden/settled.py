"""Weights that lie on a boundary, moved off it: the kernels of another device would store the neighbouring code.

A GPU divides otherwise than a CPU in the last bit. What a repair chose keeps its distance, but a weight that was on a
boundary before has no code that all devices agree on, and neither has the model that was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from quantguard.core.scheme import Scheme
from quantguard.grids.commit import placed
from quantguard.grids.grid import Grid, grid_for
from quantguard.harden.pieces import row_pieces
from quantguard.harden.scales import deciding, furthest


class Settled(Mapping[str, Tensor]):
    """`weights`, each settled when it is asked for."""

    def __init__(self, weights: Mapping[str, Tensor], schemes: Sequence[Scheme]) -> None:
        self._weights = weights
        self._grids = tuple(grid_for(codes) for codes in dict.fromkeys(scheme.codes for scheme in schemes))

    def __getitem__(self, name: str) -> Tensor:
        weight = self._weights[name]
        return torch.cat([settled(weight[rows], self._grids) for rows in row_pieces(*weight.shape)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def settled(weight: Tensor, grids: Sequence[Grid]) -> Tensor:
    """`weight` with what lies on a boundary of one of `grids` put off it, where that changes no level under any.

    The others keep their bits, and so do those that decide a scale. Where a boundary of another grid is as near, or the
    dtype is too coarse, a weight stays: either level is as right.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16.
    """
    frozen, limit = deciding(weight), furthest(weight)
    levels = [grid.nearest(weight) for grid in grids]
    result = weight
    for grid, level in zip(grids, levels, strict=True):
        on = grid.on_boundary(result) & ~frozen
        if not bool(on.any()):
            continue
        moved = placed(grid, result, level, result, ~on)
        fits = moved.float().abs() <= limit
        for other, kept in zip(grids, levels, strict=True):
            fits &= (other.nearest(moved) == kept) & (~other.on_boundary(moved) | other.on_boundary(result))
        result = torch.where(fits, moved, result)
    return result
