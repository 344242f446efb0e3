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
WIDE: Final = 512  # columns for each move that a row makes before all of its slopes are computed again
POOL: Final = 4  # times as many are looked at for that, and their effects on one another are exact
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
    allowance = max(1, round(share * weight.shape[1]))
    together = max(1, weight.shape[1] // WIDE)
    row = torch.arange(len(weight), device=h.device)[:, None]
    for taken in range(0, allowance, together):
        most = min(together, allowance - taken)
        # Of each weight's moves the best, and by how much it raises the objective: (rows, columns)
        rise, which = _rises(own, moves.change, pull).min(dim=0)
        least, column = rise.topk(POOL * most if most > 1 else 1, dim=1, largest=False)  # (rows, pool)
        change = moves.change[which.gather(1, column), :, row, column].permute(2, 0, 1)  # (grids + 1, rows, pool)
        place, falls = _taken(least, change * parts[:, None, None] ** 0.5, h, column, most)  # (rows, most)
        if not bool(falls.any()):
            break
        column, change = column.gather(1, place), change[:, row, place] * falls
        pull += parts[:, None, None] * torch.einsum("grt,rtc->grc", change, h[column])
        at, there = row.expand_as(column)[falls], column[falls]
        moved[at, there] = moves.target[which[at, there], at, there]
        own[:, at, there] = float("inf")
    return moved


def _taken(rise: Tensor, change: Tensor, h: Tensor, column: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Of a pool of moves in each row, those that lower the objective most, one after the other: (rows, most) each.

    The place of each in the pool, int64, and whether it still lowers the objective when its turn comes.

    Args:
        rise: (rows, pool), by how much each raises it alone.
        change: (grids + 1, rows, pool), what each changes, times the root of the weight of its part.
        column: of each, int64, (rows, pool).
        most: moves to take in a row.
    """
    row = torch.arange(len(rise), device=rise.device)
    beside = h[column[:, :, None], column[:, None, :]] * torch.einsum("grp,grq->rpq", change, change)
    places, falls = [], []
    for _ in range(most):
        least, best = rise.min(dim=1)
        places.append(best)
        falls.append(least < 0)
        rise = rise + 2 * falls[-1][:, None] * beside[row, best]
        rise[row, best] = float("inf")
    return torch.stack(places, dim=1), torch.stack(falls, dim=1)


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
        reached = (grid.nearest(target) == level) & (level != grid.nearest(start)) & (target.float().abs() <= limit)
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
