"""FlipGuard (arXiv 2606.28962): data-free; the weights that rounding moves furthest are rounded the other way.

An attacker who keeps a weight's code while he repairs full precision leaves it far from its level. Per block, the top
share of |w - Q(w)| moves just across its boundary. The share is fixed in advance: below the published range the model
can become worse, at 30 % it collapses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.core.progress import Progress
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import Grid
from quantguard.harden.turns import Choice, Chooser, Problem, Solution


@dataclass(frozen=True, slots=True)
class FlipRatio:
    """Share of the weights of a block that are flipped."""

    four_bit: float  # NF4 and FP4, 0..1 of the weights that share a scale
    int8: float  # 0..1 of an output row

    def of(self, scheme: Scheme) -> float:
        return self.int8 if scheme is Scheme.INT8 else self.four_bit


LOWER: Final = FlipRatio(four_bit=0.06, int8=0.10)  # the ends of the published ranges that remove the backdoor
UPPER: Final = FlipRatio(four_bit=0.10, int8=0.20)


def flipguard(ratio: FlipRatio) -> Chooser:
    """The method with its share; see the module."""

    def method(problem: Problem, progress: Progress) -> Solution:
        grid, choices = problem.grid, {}
        for done, (name, weight) in enumerate(problem.weights.items(), 1):
            flipped = most_rounded(grid, weight, problem.frozen[name], ratio.of(grid.scheme))
            levels = torch.where(flipped, grid.neighbour(weight), grid.nearest(weight))
            choices[name] = Choice(levels, torch.where(flipped, across(grid, weight), weight.float()))
            progress(f"harden {grid.scheme.value}", done, len(problem.weights))
        return Solution(choices)

    return method


def most_rounded(grid: Grid, weight: Tensor, frozen: Tensor, ratio: float) -> Tensor:
    """True at the weights with the largest |w - Q(w)| of each block or row: bool, the shape of `weight`.

    `ratio` of the weights that share a scale, to the nearest whole number (of 64, 6 % are 4 and 10 % are 6); fewer
    where fewer can be flipped. Never frozen or pinned weights, nor those on their level, which rounding does not move.
    Of equal errors the first ones are taken.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, finite.
        frozen: bool, the shape of `weight`.
        ratio: 0..1.
    """
    nearest = grid.nearest(weight)
    # INT8 reads the float16 of a weight: that error is zero on a level and has the sign by which `neighbour` is found
    error = (grid.normalise(weight) - grid.levels.to(weight.device)[nearest]).abs() * grid.unit(weight)
    flat = error.masked_fill(frozen | grid.pinned(weight), 0.0).reshape(-1)
    size = grid.block_size or weight.shape[1]
    blocks = torch.nn.functional.pad(flat, (0, -flat.numel() % size)).view(-1, size)  # (blocks, size)
    wanted = torch.full((len(blocks), 1), round(ratio * size), device=weight.device)
    if short := flat.numel() % size:
        wanted[-1] = round(ratio * short)
    rank = blocks.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    flipped = (rank < wanted) & (blocks > 0)
    return flipped.reshape(-1)[: flat.numel()].reshape(weight.shape)


def across(grid: Grid, weight: Tensor) -> Tensor:
    """As far beyond the nearest boundary as each weight lies before it: float32, in its own units and shape.

    Not at one fixed distance beyond: a scan would find weights that pile up beside boundaries, as an attacker's do.
    """
    nearest = grid.nearest(weight)
    lower, upper = grid.cell(nearest)
    boundary = torch.where(grid.neighbour(weight) > nearest, upper, lower) * grid.unit(weight)
    return 2 * boundary - weight.float()
