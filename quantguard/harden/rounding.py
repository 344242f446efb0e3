"""Rounding variables: one number per weight that says where between its two levels it shall lie.

Source: "Breaking the Rounding Trap" (arXiv 2606.29239), with the weight normalised by its scale for 4-bit schemes too.
Kernel file: tensors in, tensors out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantguard.grids.grid import Grid

_EDGE = 1e-4  # keeps the logit of a weight that lies on a level finite


@dataclass(frozen=True, slots=True)
class Rounding:
    """One layer under one grid. All tensors have the weight's shape (rows, columns)."""

    weight: Tensor  # float32, as stored
    start: Tensor  # float32, logit(r): the variable at which the soft weight is the stored weight
    position: Tensor  # float32, r = sigma(start) in (0, 1): 0 on the level below, 1 on the level above
    nearest_up: Tensor  # float32, 1.0 where stock rounding takes the level above
    width: Tensor  # float32, distance of the two levels in the weight's own units
    error: Tensor  # float32 >= 0, |weight - its stock rounding| in the weight's own units
    low: Tensor  # int64, index of the level below
    free: Tensor  # bool, False where the weight must keep its value

    def soft_weight(self, variable: Tensor) -> Tensor:
        """low + sigma(a) (high - low) in the weight's own units, float32; exactly the stored weight at `start`.

        INT8 places the float16 of a weight on its grid, so a float32 weight keeps its distance from that, up to 1/16 of
        a step.
        """
        moved = self.weight + (torch.sigmoid(variable) - self.position) * self.width
        return torch.where(self.free, moved, self.weight)

    def chosen(self, variable: Tensor) -> Tensor:
        """Index of the level that each variable chooses: int64. A weight that is not free keeps its stock rounding."""
        up = torch.where(self.free, (variable > 0).float(), self.nearest_up)
        return self.low + up.long()

    def flipped(self, variable: Tensor) -> Tensor:
        """True where the chosen level is not the one of stock rounding: bool."""
        return self.free & ((variable > 0).float() != self.nearest_up)


def rounding_of(grid: Grid, weight: Tensor, frozen: Tensor) -> Rounding:
    """The rounding variables' constants for one weight; `frozen` (bool) marks weights that must keep their value."""
    low, _ = grid.enclosing(weight)
    nearest = grid.nearest(weight)
    below, above = grid.value(weight, low), grid.value(weight, low + 1)
    stored = weight.float()
    start = torch.logit(grid.position(weight).clamp(_EDGE, 1 - _EDGE))
    return Rounding(
        weight=stored,
        start=start,
        position=torch.sigmoid(start),
        nearest_up=(nearest > low).float(),
        width=above - below,
        error=(stored - grid.value(weight, nearest)).abs(),
        low=low,
        free=~(frozen | grid.pinned(weight)),
    )
