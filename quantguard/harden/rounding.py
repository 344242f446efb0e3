"""Rounding variables: one number per weight that says where between its two levels it shall lie.

Source: "Breaking the Rounding Trap" (arXiv 2606.29239), with the weight normalised by its scale for 4-bit schemes too.
Kernel file: tensors in, tensors out. Whole tensors go through it at every step, so that the constants are small and
long chains of arithmetic are done a piece at a time, which stays in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.grids.grid import Grid

CONSTANT_BYTES: Final = 15  # of a Rounding, for each weight, beside the weight itself

_EDGE: Final = 1e-4  # keeps the logit of a weight that lies on a level finite
_PIECE: Final = 1 << 15  # weights


@dataclass(frozen=True, slots=True)
class Rounding:
    """One layer under one grid. All tensors have the weight's shape (rows, columns)."""

    weight: Tensor  # as stored: float32, float16 or bfloat16
    position: Tensor  # float32, r in (0, 1): 0 on the level below, 1 on the level above
    width: Tensor  # float32, distance of the two levels in the weight's own units; 0 where the weight is not free
    error: Tensor  # float32 >= 0, |weight - its stock rounding| in the weight's own units; 0 where it is not free
    nearest_up: Tensor  # bool, True where stock rounding takes the level above
    low: Tensor  # uint8, index of the level below
    free: Tensor  # bool, False where the weight must keep its value

    def soft_weight(self, variable: Tensor) -> Tensor:
        """low + sigma(a) (high - low) in the weight's own units, float32; exactly the stored weight at `start_of`.

        INT8 places the float16 of a weight on its grid, so a float32 weight keeps its distance from that, up to 1/16 of
        a step.
        """
        return self.weight.float() + (torch.sigmoid(variable) - self.position) * self.width

    def chosen(self, variable: Tensor) -> Tensor:
        """Index of the level that each variable chooses: int64. A weight that is not free keeps its stock rounding."""
        return self.low.long() + torch.where(self.free, variable > 0, self.nearest_up)

    def flipped(self, variable: Tensor) -> Tensor:
        """True where the chosen level is not the one of stock rounding: bool."""
        return self.free & ((variable > 0) != self.nearest_up)

    def pieces(self, *others: Tensor) -> Iterator[tuple[Rounding, tuple[Tensor, ...]]]:
        """Some rows at a time, and the same rows of `others`: views."""
        rows = max(1, _PIECE // self.weight.shape[1]) if self.weight.device.type == "cpu" else len(self.weight)
        own = (self.weight, self.position, self.width, self.error, self.nearest_up, self.low, self.free)
        for parts in zip(*(torch.split(tensor, rows) for tensor in (*own, *others)), strict=True):
            yield Rounding(*parts[: len(own)]), parts[len(own) :]


def start_of(grid: Grid, weight: Tensor) -> Tensor:
    """logit(r), the variable at which the soft weight is the stored weight: float32, the shape of `weight`."""
    return torch.logit(grid.position(weight).clamp(_EDGE, 1 - _EDGE))


def rounding_of(grid: Grid, weight: Tensor, frozen: Tensor) -> Rounding:
    """The rounding variables' constants for one weight; `frozen` (bool) marks weights that must keep their value."""
    low, _ = grid.enclosing(weight)
    nearest = grid.nearest(weight)
    free = ~(frozen | grid.pinned(weight))
    return Rounding(
        weight=weight,
        position=torch.sigmoid(start_of(grid, weight)),
        width=(grid.value(weight, low + 1) - grid.value(weight, low)) * free,
        error=(weight.float() - grid.value(weight, nearest)).abs() * free,
        nearest_up=nearest > low,
        low=low.to(torch.uint8),
        free=free,
    )


def write_soft(rounding: Rounding, variable: Tensor, out: Tensor) -> None:
    """Put the soft weight into `out`, (rows, columns), in its dtype."""
    for part, (given, written) in rounding.pieces(variable, out):
        written.copy_(torch.sigmoid(given).sub_(part.position).mul_(part.width).add_(part.weight))
