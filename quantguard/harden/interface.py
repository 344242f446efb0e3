"""What a hardening method is: a model and the schemes to be safe under in, weights out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from quantguard.core.progress import Progress
from quantguard.core.scheme import Scheme
from quantguard.harden.calibration import Corpus
from quantguard.harden.kept import Kept
from quantguard.models.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Task:
    """One model to be made safe under some schemes."""

    loaded: LoadedModel  # full precision, not trained by any method
    schemes: tuple[Scheme, ...]  # not empty
    weights: Mapping[str, Tensor]  # parameter -> (rows, columns), the input's dtype, on the model's device
    shapes: Mapping[str, tuple[int, int]]  # of `weights`, which may be read from the files at each access
    corpus: Corpus  # calibration text; the model runs when it is first asked for
    kept: Kept  # where finished layers may be written, for a run that is killed
    steps: int  # of an optimizer, for methods that have one
    seed: int  # of everything random that the method does
    room: Callable[[], int]  # bytes that may still be taken on the device


@dataclass(frozen=True, slots=True)
class Repair:
    """What a method made of the weights: their stock rounding is the one that it chose."""

    weights: Mapping[str, Tensor]  # parameter -> (rows, columns), the dtype of the input
    losses: tuple[tuple[str, float], ...] = ()  # (term, value at the end); none where nothing is optimised
    steps: int = 0  # optimizer steps taken


class Method(Protocol):
    """A plug-in: moves weights so that stock rounding takes the levels it chose. No scale changes."""

    def __call__(self, task: Task, progress: Progress) -> Repair: ...
