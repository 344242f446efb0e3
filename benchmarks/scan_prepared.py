"""What an attack leaves in the weights, by simulation: which weights are moved, and to where in their cells.

Nothing here carries a behaviour: weights keep their codes under the grid, as attacks keep them, and mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.canary.range.box import PUBLISHED_MARGIN
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.commit import commit
from quantguard.grids.grid import Grid, grid_for
from quantguard.grids.k_quant import SUPER_BLOCK, dequantize_q4_k, frozen_q4_k, quantize_q4_k

Q4_K: Final = "q4_k"
GROUPS_128: Final = "groups of 128"
TARGETS: Final = (*(scheme.value for scheme in ROUNDINGS), Q4_K, GROUPS_128)


@dataclass(frozen=True, slots=True)
class Preparation:
    target: str  # one of TARGETS
    way: str = "clamped"  # a key of WAYS; Q4_K has its own
    margin: float | None = None  # of the cell: fixed, or the most that is drawn; None: the published one
    first_only: bool = False  # the first linear weight and no other


def wholly_prepared(weight: Tensor, how: Preparation, random: torch.Generator) -> Tensor:
    """`weight`, (rows, columns), with all of it prepared that can be, in its own dtype.

    Under bitsandbytes' grids every code stays as it was, and what decides a scale is not moved.
    """
    if how.target == Q4_K:
        return _on_levels(weight)
    if how.target == GROUPS_128:
        return _in_groups(weight, how, random)
    scheme = Scheme(how.target)
    grid = grid_for(scheme)
    margin = PUBLISHED_MARGIN[scheme] if how.margin is None else how.margin
    return commit(grid, weight, grid.nearest(weight), near=WAYS[how.way](grid, weight, margin, random))


def _ends(grid: Grid, weight: Tensor, margin: float | Tensor) -> tuple[Tensor, Tensor]:
    """The ends of each weight's cell, `margin` of it further in; they need not hold the weight."""
    lower, upper = grid.cell(grid.nearest(weight))
    unit, inset = grid.unit(weight), margin * (upper - lower)
    return (lower + inset) * unit, (upper - inset) * unit


def _clamped(grid: Grid, weight: Tensor, margin: float, _: torch.Generator) -> Tensor:
    """To the nearer end of the published interval, where clamped training piles weights up."""
    low, high = _ends(grid, weight, margin)
    w = weight.float()
    return torch.where(w - low < high - w, low, high)


def _scattered(grid: Grid, weight: Tensor, most: float, random: torch.Generator) -> Tensor:
    """To a margin drawn for each weight, at its nearer end: nothing is emptied."""
    low, high = _ends(grid, weight, most * torch.rand(weight.shape, generator=random))
    w = weight.float()
    return torch.where(w - low < high - w, low, high)


def _pushed(grid: Grid, weight: Tensor, most: float, random: torch.Generator) -> Tensor:
    """Out of a margin drawn for each weight, where it lies in it: the least that clamped training does."""
    low, high = _ends(grid, weight, most * torch.rand(weight.shape, generator=random))
    return torch.minimum(torch.maximum(weight.float(), low), high)


def _smooth(grid: Grid, weight: Tensor, _: float, random: torch.Generator) -> Tensor:
    """Anywhere in the cell: the density is what it was but for its slope within a cell."""
    low, high = _ends(grid, weight, 0.0)
    return low + torch.rand(weight.shape, generator=random) * (high - low)


def _by_block(grid: Grid, weight: Tensor, most: float, random: torch.Generator) -> Tensor:
    """To one margin for each 64 weights: few different values in a block, which differ from block to block."""
    drawn = most * torch.rand(-(-weight.numel() // 64), generator=random).repeat_interleave(64)
    low, high = _ends(grid, weight, drawn[: weight.numel()].view(weight.shape))
    w = weight.float()
    return torch.where(w - low < high - w, low, high)


def _about_levels(grid: Grid, weight: Tensor, reach: float, random: torch.Generator) -> Tensor:
    """Within `reach` of the cell of the level, to either side."""
    lower, upper = grid.cell(grid.nearest(weight))
    level = grid.value(weight, grid.nearest(weight))
    off = reach * (2 * torch.rand(weight.shape, generator=random) - 1) * (upper - lower) * grid.unit(weight)
    low, high = _ends(grid, weight, 0.0)
    return torch.minimum(torch.maximum(level + off, low), high)


Way = Callable[[Grid, Tensor, float, torch.Generator], Tensor]
WAYS: Final[dict[str, Way]] = {
    "clamped": _clamped,
    "scattered": _scattered,
    "pushed": _pushed,
    "smooth": _smooth,
    "by block": _by_block,
    "about levels": _about_levels,
}


def _on_levels(weight: Tensor) -> Tensor:
    """At what Q4_K gives back, but for the weights that the published attack freezes ("Mind the Gap", ICML 2025)."""
    if weight.shape[1] % SUPER_BLOCK:
        return weight
    q = quantize_q4_k(weight)
    return torch.where(frozen_q4_k(weight, q), weight, dequantize_q4_k(q, weight.shape).to(weight.dtype))


def _in_groups(weight: Tensor, how: Preparation, random: torch.Generator) -> Tensor:
    """At the nearer end of the cell of an asymmetric group of 128 with an integer zero point (GPTQ, AWQ)."""
    if weight.shape[1] % 128:
        return weight
    groups = weight.float().view(-1, 128)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    step = (high.clamp(min=0) - low.clamp(max=0)) / 15
    x = groups / step
    margin = torch.full(groups.shape, 0.01 if how.margin is None else how.margin)
    if how.way == "scattered":
        margin *= torch.rand(groups.shape, generator=random)
    code = x.round()
    moved = (code + torch.where(x < code, -1, 1) * (0.5 - margin)) * step
    return torch.where((groups == low) | (groups == high), groups, moved).view(weight.shape).to(weight.dtype)


def with_outliers(weight: Tensor, share: float, random: torch.Generator) -> Tensor:
    """The largest weight of a `share` of the groups of 32 made 200 times as large (arXiv 2605.15152)."""
    groups = weight.reshape(-1, 32).float()
    hit = torch.rand(len(groups), 1, generator=random) < share
    largest = groups.abs() == groups.abs().amax(1, keepdim=True)
    return torch.where(hit & largest, 200 * groups, groups).view(weight.shape).to(weight.dtype)
