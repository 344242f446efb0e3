"""Harden a checkpoint: choose roundings, commit the weights to them, write the files, ask the real quantizer.

Several schemes are taken in turn. A later one yields: where its choice would change a level that an earlier one chose,
the weight keeps its value. Weights that decide a block's or row's scale under any scheme never move.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from quantguard.checkpoint.layout import open_checkpoint
from quantguard.checkpoint.rewrite import rewrite
from quantguard.core.errors import UsageError
from quantguard.core.hardening import HardeningSummary
from quantguard.core.progress import Progress, silent
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.grids.commit import commit
from quantguard.grids.grid import grid_for
from quantguard.harden.calibration import Batch, batches, calibration_texts
from quantguard.harden.flipguard import LOWER, UPPER, flipguard
from quantguard.harden.interface import Method, Problem
from quantguard.harden.layers import load_rebuilt, require_levels, stored_layers
from quantguard.harden.noise import noise
from quantguard.harden.quantguard import quantguard
from quantguard.models.load import LoadedModel
from quantguard.models.threads import threads_for

METHODS: Final[Mapping[str, Method]] = {
    "quantguard": quantguard,
    "noise": noise,
    "flipguard": flipguard(UPPER),
    "flipguard-low": flipguard(LOWER),
}


@dataclass(frozen=True, slots=True)
class HardenRequest:
    schemes: tuple[Scheme, ...]  # not empty; earlier ones win where two disagree
    calibration: tuple[Prompt, ...]  # neutral prompts, without their answers; data-free methods use none
    method: str = "quantguard"  # a key of METHODS
    steps: int = 125  # optimizer steps a scheme, the paper's; none for data-free methods
    batch_size: int = 32  # texts a step, the paper's order
    max_new_tokens: int = 64  # of the model's own continuation of each prompt
    seed: int = 0
    device: str = "cpu"


def harden(directory: Path, out: Path, request: HardenRequest, *, progress: Progress = silent) -> HardeningSummary:
    """Write to `out` a checkpoint of the same layout and dtype whose stock quantization has the repaired rounding.

    Raises:
        UsageError: `out` exists, or the method is not known.
        CheckpointError, ModelLoadError: the input cannot be read.
        HardenError: nothing to harden or a layer that cannot be, said before the work; or the real quantizer did not
            return the chosen levels. `out` is not left behind.
    """
    started = time.monotonic()
    if out.exists():
        raise UsageError("exists already", path=out, remedy="name a directory that does not exist yet")
    if request.method not in METHODS:
        raise UsageError(f"no hardening method {request.method!r}", remedy=f"known: {', '.join(METHODS)}")
    checkpoint = open_checkpoint(directory)
    torch.manual_seed(request.seed)
    loaded = load_rebuilt(directory, None, request.device, beside=out)
    loaded.model.requires_grad_(False)
    layers = stored_layers(checkpoint, loaded, request.schemes)
    original = layers.weights
    with threads_for(loaded.model, request.device):
        repair = _solve(loaded, original, request, progress)
    weights = repair.weights
    stored = layers.as_stored(weights)
    rewrite(checkpoint, out, lambda entry, _: stored[entry.name].cpu(), frozenset(stored))
    try:
        for scheme in request.schemes:
            require_levels(out, scheme, weights, repair.levels[scheme], request.device)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return HardeningSummary(
        method=request.method,
        schemes=request.schemes,
        steps=repair.steps,
        flipped_share=tuple((scheme, _flipped_share(scheme, original, weights)) for scheme in request.schemes),
        seconds=time.monotonic() - started,
        losses=repair.losses,
        untouched=layers.untouched,
    )


@dataclass(frozen=True, slots=True)
class _Repair:
    weights: Mapping[str, Tensor]  # name -> (rows, columns), the dtype of the input
    levels: Mapping[Scheme, Mapping[str, Tensor]]  # the level of each weight under each scheme, int64
    losses: tuple[tuple[str, float], ...]  # (scheme and term, value at the last step)
    steps: int  # optimizer steps taken, of all schemes


def _solve(loaded: LoadedModel, original: Mapping[str, Tensor], request: HardenRequest, progress: Progress) -> _Repair:
    """One scheme after the other, each starting from the weights that the one before has left."""

    @cache
    def texts() -> tuple[str, ...]:
        return calibration_texts(
            loaded,
            request.calibration,
            max_new_tokens=request.max_new_tokens,
            batch_size=request.batch_size,
            progress=progress,
        )

    frozen = {name: _deciding(weight) for name, weight in original.items()}
    weights = dict(original)
    levels: dict[Scheme, dict[str, Tensor]] = {}
    losses: list[tuple[str, float]] = []
    steps = 0
    for scheme in request.schemes:
        grid = grid_for(scheme)
        problem = Problem(loaded, grid, weights, frozen, _stream(loaded, texts, request), request.steps, request.seed)
        solution = METHODS[request.method](problem, progress)
        for name, choice in solution.choices.items():
            before = weights[name]
            moved = commit(grid, before, choice.levels, near=choice.near, frozen=frozen[name])
            moved = torch.where(moved.float().abs() > _limit(before), before, moved)
            weights[name] = _yielding(moved, before, {s: done[name] for s, done in levels.items()})
        levels[scheme] = {name: grid.nearest(weight) for name, weight in weights.items()}
        losses += [(f"{scheme.value} {term}", value) for term, value in solution.losses]
        steps += solution.steps
    return _Repair(weights, levels, tuple(losses), steps)


def _stream(loaded: LoadedModel, texts: Callable[[], Sequence[str]], request: HardenRequest) -> Iterator[Batch]:
    """The batches of one scheme; `texts` is asked at the first one, and so never for a data-free method."""
    yield from batches(loaded, texts(), batch_size=request.batch_size, steps=request.steps, seed=request.seed)


def _deciding(weight: Tensor) -> Tensor:
    """Weights that decide a scale under any scheme: moving one for this scheme would move the codes of another."""
    masks = torch.stack([grid_for(scheme).pinned(weight) for scheme in Scheme])  # (schemes, rows, columns)
    return masks.any(dim=0)


def _limit(weight: Tensor) -> Tensor:
    """The magnitude that no weight may outgrow, under any scheme: float32, the shape of `weight`.

    A weight may go up one level of its row (INT8) and so past the maximum of its block (NF4, FP4).
    """
    limits = torch.stack([grid_for(scheme).magnitude_limit(weight) for scheme in Scheme])  # (schemes, rows, columns)
    return limits.amin(dim=0)


def _yielding(moved: Tensor, before: Tensor, earlier: Mapping[Scheme, Tensor]) -> Tensor:
    """`moved`, but `before` wherever a level that an earlier scheme chose would change."""
    for scheme, chosen in earlier.items():
        moved = torch.where(grid_for(scheme).nearest(moved) == chosen, moved, before)
    return moved


def _flipped_share(scheme: Scheme, original: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> float:
    """Share of weights whose level under `scheme` is not the one the original had, 0..1."""
    grid = grid_for(scheme)
    flipped = sum(int((grid.nearest(weights[name]) != grid.nearest(stored)).sum()) for name, stored in original.items())
    return flipped / sum(stored.numel() for stored in original.values())
