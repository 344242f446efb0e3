"""What a hardening method is: rounding problem in, levels out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from quantguard.core.progress import Progress
from quantguard.grids.grid import Grid
from quantguard.harden.calibration import Batch
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


@dataclass(frozen=True, slots=True)
class Choice:
    """The levels a method chose for one layer."""

    levels: Tensor  # int64 (rows, columns), indices of the grid's levels
    near: Tensor  # float32 (rows, columns), where the method would put the weight


@dataclass(frozen=True, slots=True)
class Solution:
    choices: Mapping[str, Choice]
    losses: tuple[tuple[str, float], ...] = ()  # (term, value at the last step); none where nothing is optimised
    steps: int = 0  # optimizer steps taken


class Method(Protocol):
    """A plug-in: chooses a level for every free weight. Frozen and pinned weights keep the level they have."""

    def __call__(self, problem: Problem, progress: Progress) -> Solution: ...
