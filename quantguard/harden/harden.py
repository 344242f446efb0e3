"""Harden a checkpoint: choose roundings, move the weights to them, write the files, ask the real quantizer."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from quantguard.checkpoint.digest import model_digest
from quantguard.checkpoint.layout import Checkpoint, TensorEntry, open_checkpoint
from quantguard.checkpoint.rewrite import rewrite
from quantguard.core.calibration import GIVEN, SELF, CalibrationSet, Sampled
from quantguard.core.errors import QuantGuardError, UsageError
from quantguard.core.hardening import CalibrationUsed, HardeningSummary
from quantguard.core.progress import Progress, silent
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.harden.auto import auto
from quantguard.harden.calibration import Corpus, calibration_texts
from quantguard.harden.changes import changed_roundings, flipped_shares, moved_positions
from quantguard.harden.flipguard import LOWER, UPPER, flipguard
from quantguard.harden.interface import Method, Task
from quantguard.harden.kept import Kept
from quantguard.harden.layers import StoredLayers, load_rebuilt, require_levels, stored_layers
from quantguard.harden.noise import noise
from quantguard.harden.prompts import sampled_prompts
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
_DATA_FREE: Final = frozenset({"noise", "flipguard", "flipguard-low"})  # those of them that read no calibration text


@dataclass(frozen=True, slots=True)
class HardenRequest:
    schemes: tuple[Scheme, ...]  # not empty; earlier ones win where two disagree
    calibration: tuple[Prompt, ...] | CalibrationSet | Sampled  # asked without answers; data-free methods use none
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
        HardenError: nothing to harden or a layer that cannot be, said before the work; the model gives no prompts; or
            the real quantizer did not return the chosen levels. `out` is not left behind.
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
    prompts = cache(partial(_calibration, loaded, request, progress))
    texts = cache(lambda: _texts(loaded, prompts(), request, progress))
    corpus = Corpus(loaded, texts, request.batch_size, request.seed)
    kept = Kept(out.with_name(f".{out.name}.hardening"), _identity(directory, request))
    task = Task(loaded, request.schemes, original, corpus, kept, request.steps, request.seed)
    try:
        with threads_for(loaded.model, request.device):
            repair = METHODS[request.method](task, progress)
        _write(checkpoint, out, layers, repair.weights, request)
        counts = changed_roundings(request.schemes, original, repair.weights)
        positions = moved_positions(counts, original, repair.weights, layers.stored)
    except QuantGuardError:
        kept.remove()
        raise
    kept.remove()
    return HardeningSummary(
        method=request.method,
        schemes=request.schemes,
        steps=repair.steps,
        flipped_share=flipped_shares(counts, original),
        seconds=time.monotonic() - started,
        losses=repair.losses,
        untouched=layers.untouched,
        calibration=None if request.method in _DATA_FREE else _used(prompts()),
        positions=positions,
    )


def _write(
    checkpoint: Checkpoint, out: Path, layers: StoredLayers, weights: Mapping[str, Tensor], request: HardenRequest
) -> None:
    """The files, one tensor in memory at a time; removed again unless the real quantizer takes the chosen levels."""
    held = {stored: name for name, stored in layers.stored.items()}

    def replaced(entry: TensorEntry, _: Tensor) -> Tensor:
        name = held[entry.name]
        return layers.as_stored(name, weights[name]).cpu()

    rewrite(checkpoint, out, replaced, frozenset(held))
    try:
        for scheme in request.schemes:
            require_levels(out, scheme, weights, request.device)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _identity(directory: Path, request: HardenRequest) -> str:
    """Digest of everything that the hardened layers are computed from."""
    versions = [f"{name} {metadata.version(name)}" for name in ("quantguard", "torch", "transformers")]
    return hashlib.sha256(repr((model_digest(directory), request, versions)).encode()).hexdigest()


def _calibration(loaded: LoadedModel, request: HardenRequest, progress: Progress) -> CalibrationSet:
    """The prompts with where they come from, sampled now if the model itself is to give them."""
    match request.calibration:
        case CalibrationSet() as chosen:
            return chosen
        case Sampled(count):
            given = sampled_prompts(loaded, count, seed=request.seed, progress=progress)
            return CalibrationSet(f"{SELF}/{request.seed}", given)
        case prompts:
            return CalibrationSet(GIVEN, prompts)


def _texts(
    loaded: LoadedModel, calibration: CalibrationSet, request: HardenRequest, progress: Progress
) -> tuple[str, ...]:
    return calibration_texts(
        loaded,
        calibration.prompts,
        max_new_tokens=request.max_new_tokens,
        batch_size=request.batch_size,
        progress=progress,
    )


def _used(calibration: CalibrationSet) -> CalibrationUsed:
    return CalibrationUsed(calibration.source, len(calibration.prompts), calibration.digest)
