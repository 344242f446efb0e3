"""Which few roundings of one layer to change, so that quantization no longer changes what the layer says.

The output error of a layer under a grid is, over its inputs x in calibration text,

    E = tr (Q(W) - W) H (Q(W) - W)^T,    H = mean of x x^T,

the objective of optimal brain compression (arXiv 2208.11580), GPTQ (arXiv 2210.17323) and AdaRound (arXiv 2004.10568).
Stock rounding takes each weight by itself; in a prepared layer the errors conspire, and E, along some inputs, is
large. Here weights are moved across a boundary to the next level, in each row the one whose move lowers most

    sum over the grids of E  +  OWN times the full-precision model's, tr (W* - W) H (W* - W)^T,

and then again, until none lowers it or the share of weights that may move is used up. A move is weighed with its exact
effect under every grid: one that helps NF4 and spoils FP4 is not made. Nothing is random. Kernel file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.grids.commit import placed
from quantguard.grids.grid import Grid

OWN: Final = 0.1  # of the full-precision model's own error, in the objective
DAMPING: Final = 0.01  # of the mean of H's diagonal, added to it: inputs that the calibration text did not have


@dataclass(frozen=True, slots=True)
class Moves:
    """Every weight's moves across a boundary: to the next level below and above, under each grid."""

    target: Tensor  # (moves, rows, columns), the weight's dtype: the value that is moved to
    change: Tensor  # (moves, grids + 1, rows, columns), float32: of the value under each grid, and of the weight itself
    allowed: Tensor  # (moves, rows, columns), bool


def descend(
    weight: Tensor, moment: Tensor, grids: Sequence[Grid], *, start: Tensor, frozen: Tensor, limit: Tensor, share: float
) -> Tensor:
    """`start` with at most `share` of the weights of each row moved: the dtype and shape of `weight`.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16: what the layer should say in full precision.
        moment: H, float32, (columns, columns).
        grids: that are to say it too.
        start: the weight as it is now, with the scales of `weight`.
        frozen: bool, of weights that keep their value.
        limit: float32, the magnitude that each may not outgrow.
        share: 0..1.
    """
    moves = _moves(start, grids, frozen, limit)
    h = moment + DAMPING * moment.diagonal().mean() * torch.eye(len(moment), device=moment.device)
    errors = [grid.value(start, grid.nearest(start)) - weight.float() for grid in grids]
    errors.append(start.float() - weight.float())
    # Of each grid's error and the weight's own, how much it counts: float32, (grids + 1,)
    parts = torch.tensor([*(1.0 for _ in grids), OWN], device=h.device)
    # Half the slope of the objective: (grids + 1, rows, columns)
    pull = torch.stack([part * (error @ h) for part, error in zip(parts, errors, strict=True)])
    # What a move costs by its own square: it never changes, for each weight moves once.
    own = ((moves.change.square() * parts[:, None, None]).sum(1) * h.diagonal()).masked_fill_(
        ~moves.allowed, float("inf")
    )
    moved = start.clone()
    for _ in range(max(1, round(share * weight.shape[1]))):
        # (rows, columns): of each weight's moves the best, and by how much it raises the objective
        rise, which = _rises(own, moves.change, pull).min(dim=0)
        least, column = rise.min(dim=1)
        row = (least < 0).nonzero().view(-1)
        if not len(row):
            break
        column = column[row]
        move = which[row, column]
        moved[row, column] = moves.target[move, row, column]
        change = moves.change[move, :, row, column]  # (rows that move, grids + 1)
        pull[:, row] += (parts[:, None] * change.T)[:, :, None] * h[column]
        own[:, row, column] = float("inf")
    return moved


def _rises(own: Tensor, change: Tensor, pull: Tensor) -> Tensor:
    """By how much each move raises the objective: float32, (moves, rows, columns)."""
    for grid in range(len(pull)):
        own = torch.addcmul(own, change[:, grid], pull[grid], value=2)
    return own


def _moves(start: Tensor, grids: Sequence[Grid], frozen: Tensor, limit: Tensor) -> Moves:
    here = [grid.value(start, grid.nearest(start)) for grid in grids]
    targets, changes, allowed = [], [], []
    for grid, level, target in _targets(start, grids, frozen):
        there = [other.value(start, other.nearest(target)) for other in grids]
        reached = (grid.nearest(target) == level) & (target != start) & (target.float().abs() <= limit)
        targets.append(target)
        by = [b - a for a, b in zip(here, there, strict=True)]
        changes.append(torch.stack([*by, target.float() - start.float()]))
        allowed.append(reached & ~frozen)
    return Moves(torch.stack(targets), torch.stack(changes), torch.stack(allowed))


def _targets(start: Tensor, grids: Sequence[Grid], frozen: Tensor) -> Iterator[tuple[Grid, Tensor, Tensor]]:
    """Grid, level and value of each move."""
    for grid in grids:
        nearest = grid.nearest(start)
        lower, upper = grid.cell(nearest)
        for step, boundary in ((-1, lower), (1, upper)):
            level = torch.where(frozen, nearest, (nearest + step).clamp(0, grid.levels.numel() - 1))
            # As far beyond the boundary as it lies before it: no strip along it is emptied and none is filled.
            beyond = 2 * boundary * grid.unit(start) - start.float()
            yield grid, level, placed(grid, start, level, beyond, frozen)
