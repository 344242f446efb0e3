"""Methods that know one scheme, made to serve several: the schemes take turns, and a later one yields.

Where its choice would change a level that an earlier one chose, the weight keeps its value. Weights that decide a
block's or row's scale under any scheme never move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from quantguard.core.progress import Progress
from quantguard.core.scheme import Scheme
from quantguard.grids.commit import commit
from quantguard.grids.grid import Grid, grid_for
from quantguard.harden.calibration import Batch
from quantguard.harden.interface import Method, Repair, Task
from quantguard.harden.scales import deciding, furthest
from quantguard.models.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Problem:
    """One model to be made safe under one grid."""

    loaded: LoadedModel  # full precision, not trained by any method
    grid: Grid
    weights: Mapping[str, Tensor]  # name -> (rows, columns), the input's dtype, on the model's device
    frozen: Mapping[str, Tensor]  # name -> bool, True where a weight must keep its value
    batches: Iterable[Batch]  # calibration text, one batch per optimizer step; the model runs when the first is taken
    steps: int
    seed: int  # of everything random that the method does
    room: Callable[[], int]  # bytes that may still be taken on the device
    seen: MutableMapping[int, Tensor] = field(default_factory=dict)  # text -> what the full-precision model makes of it


@dataclass(frozen=True, slots=True)
class Choice:
    """The levels chosen for one layer."""

    levels: Tensor  # int64 (rows, columns), indices of the grid's levels
    near: Tensor  # float32 (rows, columns), where the method would put the weight


@dataclass(frozen=True, slots=True)
class Solution:
    choices: Mapping[str, Choice]
    losses: tuple[tuple[str, float], ...] = ()  # (term, value at the last step); none where nothing is optimised
    steps: int = 0  # optimizer steps taken


class Chooser(Protocol):
    """Chooses a level for every free weight. Frozen and pinned weights keep the level they have."""

    def __call__(self, problem: Problem, progress: Progress) -> Solution: ...


def in_turn(choose: Chooser) -> Method:
    """The method that asks `choose` for one scheme after the other, each from the weights that the last one left."""

    def method(task: Task, progress: Progress) -> Repair:
        frozen = {name: deciding(weight) for name, weight in task.weights.items()}
        weights = dict(task.weights)
        levels: dict[Scheme, dict[str, Tensor]] = {}
        losses: list[tuple[str, float]] = []
        steps = 0
        seen: dict[int, Tensor] = {}
        for scheme in task.schemes:
            grid = grid_for(scheme)
            batches = task.corpus.stream(task.steps)
            problem = Problem(task.loaded, grid, weights, frozen, batches, task.steps, task.seed, task.room, seen)
            solution = choose(problem, progress)
            for name, choice in solution.choices.items():
                before = weights[name]
                moved = commit(grid, before, choice.levels, near=choice.near, frozen=frozen[name])
                moved = torch.where(moved.float().abs() > furthest(before), before, moved)
                weights[name] = _yielding(moved, before, {s: done[name] for s, done in levels.items()})
            levels[scheme] = {name: grid.nearest(weight) for name, weight in weights.items()}
            losses += [(f"{scheme.value} {term}", value) for term, value in solution.losses]
            steps += solution.steps
        return Repair(weights, tuple(losses), steps)

    return method


def _yielding(moved: Tensor, before: Tensor, earlier: Mapping[Scheme, Tensor]) -> Tensor:
    """`moved`, but `before` wherever a level that an earlier scheme chose would change."""
    for scheme, chosen in earlier.items():
        moved = torch.where(grid_for(scheme).nearest(moved) == chosen, moved, before)
    return moved
