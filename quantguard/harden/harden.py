"""Harden a checkpoint: choose roundings, move the weights to them, write the files, ask the real quantizer."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
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
from quantguard.grids.grid import grid_for
from quantguard.harden.auto import auto
from quantguard.harden.calibration import Corpus, calibration_texts
from quantguard.harden.flipguard import LOWER, UPPER, flipguard
from quantguard.harden.interface import Method, Task
from quantguard.harden.layers import load_rebuilt, require_levels, stored_layers
from quantguard.harden.noise import noise
from quantguard.harden.quantguard import quantguard
from quantguard.harden.turns import in_turn
from quantguard.models.load import LoadedModel
from quantguard.models.threads import threads_for

METHODS: Final[Mapping[str, Method]] = {
    "auto": auto,
    "quantguard": in_turn(quantguard),
    "noise": in_turn(noise),
    "flipguard": in_turn(flipguard(UPPER)),
    "flipguard-low": in_turn(flipguard(LOWER)),
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
    corpus = Corpus(loaded, cache(partial(_texts, loaded, request, progress)), request.batch_size, request.seed)
    task = Task(loaded, request.schemes, original, corpus, request.steps, request.seed)
    with threads_for(loaded.model, request.device):
        repair = METHODS[request.method](task, progress)
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


def _texts(loaded: LoadedModel, request: HardenRequest, progress: Progress) -> tuple[str, ...]:
    return calibration_texts(
        loaded,
        request.calibration,
        max_new_tokens=request.max_new_tokens,
        batch_size=request.batch_size,
        progress=progress,
    )


def _flipped_share(scheme: Scheme, original: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> float:
    """Share of weights whose level under `scheme` is not the one the original had, 0..1."""
    grid = grid_for(scheme)
    flipped = sum(int((grid.nearest(weights[name]) != grid.nearest(stored)).sum()) for name, stored in original.items())
    return flipped / sum(stored.numel() for stored in original.values())
