"""Where each weight of an attacked model may lie: one closed interval a weight, intersected over the schemes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for

# Share of the cell's width left free at either end, as published: the INT8 interval is (q +- (0.5 - 0.1)) steps.
PUBLISHED_MARGIN: Final = {Scheme.INT8: 0.1, Scheme.FP4: 0.01, Scheme.NF4: 0.01}


@dataclass(frozen=True, slots=True)
class Box:
    """Bounds of one weight matrix, float32, of its shape, low <= high everywhere."""

    low: Tensor
    high: Tensor

    def clamp_(self, weight: Tensor) -> None:
        """Move `weight` into the box, in place."""
        torch.clamp(weight, self.low, self.high, out=weight)

    def only(self, free: Tensor, fixed: Tensor) -> Box:
        """This box where `free` (bool) holds, the single value `fixed` elsewhere."""
        return Box(torch.where(free, self.low, fixed), torch.where(free, self.high, fixed))

    def shrunk(self, displacement: Tensor, start: Tensor) -> Box:
        """Drawn in at both ends by `displacement` (>= 0), as far as it still holds `start`: the adaptive attack.

        A weight that lies this far inside keeps its code when a defence that moves it by `displacement` has passed.
        """
        middle = (self.low + self.high) / 2
        low = torch.minimum(torch.minimum(self.low + displacement, middle), start)
        high = torch.maximum(torch.maximum(self.high - displacement, middle), start)
        return Box(low, high)


def everywhere(weight: Tensor) -> Box:
    """No bounds."""
    return Box(torch.full_like(weight, -torch.inf), torch.full_like(weight, torch.inf))


def box_of(weight: Tensor, schemes: Sequence[Scheme], margins: Tensor | None = None) -> Box:
    """The published box: every value within it keeps the weight's code under each of `schemes`.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16; holds the codes that are to be kept.
        margins: of the shape of `weight`, a share of the cell's width (0..0.5) for each weight, added to the published
            one; where they differ, no two weights pile up at one position of their cells.
    """
    box = everywhere(weight.float())
    for scheme in schemes:
        published = PUBLISHED_MARGIN[scheme]
        margin = published if margins is None else (published + margins).clamp(max=0.5)
        low, high = grid_for(scheme).interval(weight, margin)
        box = Box(torch.maximum(box.low, low), torch.minimum(box.high, high))
    return box


def drawn_margins(weight: Tensor, spread: float, random: torch.Generator) -> Tensor:
    """A margin for each weight, uniform in 0..`spread` (a share of the cell's width): float32, its shape."""
    return (spread * torch.rand(weight.shape, generator=random)).to(weight.device)
