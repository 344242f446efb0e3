"""Harden a checkpoint: choose roundings, move the weights to them, write the files, ask the real quantizer."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from quantguard.checkpoint.digest import model_digest
from quantguard.checkpoint.layout import TensorEntry, open_checkpoint
from quantguard.checkpoint.rewrite import rewrite
from quantguard.core.calibration import GIVEN, SELF, CalibrationSet, Sampled
from quantguard.core.errors import QuantGuardError, UsageError
from quantguard.core.hardening import CalibrationUsed, HardeningSummary
from quantguard.core.progress import Progress, silent
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.grids.outlier import outliers_of
from quantguard.harden.auto import auto
from quantguard.harden.calibration import Corpus, calibration_texts
from quantguard.harden.changes import changed_roundings, flipped_shares, moved_positions
from quantguard.harden.flipguard import LOWER, UPPER, flipguard
from quantguard.harden.interface import Method, Task
from quantguard.harden.kept import Kept
from quantguard.harden.layers import (
    FileWeights,
    StoredLayers,
    require_levels,
    require_levels_one_by_one,
    stored_layers,
)
from quantguard.harden.noise import noise
from quantguard.harden.plan import Plan, plan
from quantguard.harden.prompts import sampled_prompts
from quantguard.harden.quantguard import quantguard
from quantguard.harden.settled import Settled
from quantguard.harden.turns import in_turn
from quantguard.models.load import LoadedModel, load_model
from quantguard.models.safe_directory import rebuild
from quantguard.models.threads import threads_for

METHODS: Final[Mapping[str, Method]] = {
    "auto": auto,
    "quantguard": in_turn(quantguard),
    "noise": in_turn(noise),
    "flipguard": in_turn(flipguard(UPPER)),
    "flipguard-low": in_turn(flipguard(LOWER)),
}
_DATA_FREE: Final = frozenset({"noise", "flipguard", "flipguard-low"})  # those of them that read no calibration text
_STREAMED: Final = frozenset({"auto"})  # those that hold no more than one layer and the moments of some others
_SAMPLED: Final = 1 << 20  # weights of a layer that are looked at for outliers


@dataclass(frozen=True, slots=True)
class HardenRequest:
    schemes: tuple[Scheme, ...]  # not empty; earlier ones win where two disagree
    calibration: tuple[Prompt, ...] | CalibrationSet | Sampled  # asked without answers; data-free methods use none
    method: str = "auto"  # a key of METHODS
    steps: int = 125  # optimizer steps a scheme, the paper's; of method quantguard alone
    batch_size: int = 32  # texts a step, the paper's order
    max_new_tokens: int = 64  # of the model's own continuation of each prompt
    seed: int = 0
    device: str = "cpu"
    max_memory: int | None = None  # bytes on the device, the model's included; None: all that are free


def harden(directory: Path, out: Path, request: HardenRequest, *, progress: Progress = silent) -> HardeningSummary:
    """Write to `out` a checkpoint of the same layout and dtype whose stock quantization has the repaired rounding.

    What is done already, of an earlier run of the same request that was killed, is used.

    Raises:
        UsageError: `out` exists, or the method is not known.
        CheckpointError, ModelLoadError: the input cannot be read.
        HardenError: the model does not fit, nothing is to be hardened, or a layer cannot be, said before the work; the
            model gives no prompts; or the real quantizer did not return the chosen levels. `out` is not left behind.
    """
    started = time.monotonic()
    if out.exists():
        raise UsageError("exists already", path=out, remedy="name a directory that does not exist yet")
    if request.method not in METHODS:
        raise UsageError(f"no hardening method {request.method!r}", remedy=f"known: {', '.join(METHODS)}")
    checkpoint = open_checkpoint(directory)
    streams = request.method in _STREAMED
    where = plan(checkpoint, request.device, batch_size=request.batch_size, streams=streams, most=request.max_memory)
    progress("harden, model", 0, 1, where.words)
    torch.manual_seed(request.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = Kept(out.with_name(f".{out.name}.hardening"), _identity(directory, request))
    try:
        clean = rebuild(directory, kept.clean_copy())  # it has to outlive a streamed model, which reads from it
        loaded = load_model(clean, scheme=None, device=request.device, room=where.room)
        loaded.model.requires_grad_(False)
        progress("harden, model", 1, 1, where.words)
        layers = stored_layers(checkpoint, loaded, request.schemes, streamed=where.room is not None)
        summary = _hardened(_Work(started, out, request, where, loaded, layers, kept), progress)
    except QuantGuardError:
        kept.remove()
        raise
    kept.remove()
    return summary


@dataclass(frozen=True, slots=True)
class _Work:
    """One model in memory, ready to be hardened."""

    started: float  # of time.monotonic()
    out: Path
    request: HardenRequest
    where: Plan
    loaded: LoadedModel
    layers: StoredLayers
    kept: Kept


def _hardened(work: _Work, progress: Progress) -> HardeningSummary:
    request, layers, loaded = work.request, work.layers, work.loaded
    prompts = cache(partial(_calibration, work, progress))
    texts = cache(lambda: work.kept.lines("texts", lambda: _texts(loaded, prompts(), request, progress)))
    corpus = Corpus(loaded, texts, request.batch_size, request.seed)
    task = Task(
        loaded=loaded,
        schemes=request.schemes,
        weights=layers.weights,
        shapes=layers.shapes,
        corpus=corpus,
        kept=work.kept,
        steps=request.steps,
        seed=request.seed,
        room=work.where.left,
    )
    with threads_for(loaded.model, request.device):
        repair = METHODS[request.method](task, progress)
    weights = Settled(repair.weights, request.schemes)
    _write(work, weights)
    counts = changed_roundings(request.schemes, layers.weights, weights)
    return HardeningSummary(
        method=request.method,
        schemes=request.schemes,
        steps=repair.steps,
        flipped_share=flipped_shares(counts, sum(rows * columns for rows, columns in layers.shapes.values())),
        seconds=time.monotonic() - work.started,
        losses=repair.losses,
        untouched=layers.untouched,
        calibration=None if request.method in _DATA_FREE else _used(prompts()),
        positions=moved_positions(counts, layers.weights, weights, layers.stored),
        unchanged=tuple(layers.stored[name] for name, of in counts.items() if not any(of.values())),
        outliers=tuple(layers.stored[name] for name, weight in layers.weights.items() if _has_outliers(weight)),
    )


def _has_outliers(weight: Tensor) -> bool:
    """Whether one weight in each group drowns the others, which no choice of roundings undoes."""
    several = max(1, _SAMPLED // weight.shape[1])
    return outliers_of(weight[:several].float().cpu()).suspicious


def _write(work: _Work, weights: Mapping[str, Tensor]) -> None:
    """The files, one tensor in memory at a time; removed again unless the real quantizer takes the chosen levels."""
    layers, out, device = work.layers, work.out, work.request.device
    held = {stored: name for name, stored in layers.stored.items()}

    def replaced(entry: TensorEntry, _: Tensor) -> Tensor:
        name = held[entry.name]
        return layers.as_stored(name, weights[name]).cpu()

    written = rewrite(layers.checkpoint, out, replaced, frozenset(held))
    try:
        if work.where.room is not None:
            files = FileWeights(written, layers.stored, layers.transposed, device)
            require_levels_one_by_one(out, work.request.schemes, weights, files)
            return
        for scheme in work.request.schemes:
            require_levels(out, scheme, weights, device)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _identity(directory: Path, request: HardenRequest) -> str:
    """Digest of everything that the hardened layers are computed from, which the memory allowed is not."""
    versions = [f"{name} {metadata.version(name)}" for name in ("quantguard", "torch", "transformers")]
    asked = replace(request, max_memory=None)
    return hashlib.sha256(repr((model_digest(directory), asked, versions)).encode()).hexdigest()


def _calibration(work: _Work, progress: Progress) -> CalibrationSet:
    """The prompts with where they come from, sampled now if the model itself is to give them."""
    request = work.request
    match request.calibration:
        case CalibrationSet() as chosen:
            return chosen
        case Sampled(count):

            def given() -> list[str]:
                drawn = sampled_prompts(work.loaded, count, seed=request.seed, progress=progress)
                return [prompt.prompt for prompt in drawn]

            prompts = tuple(Prompt(text) for text in work.kept.lines("prompts", given))
            return CalibrationSet(f"{SELF}/{request.seed}", prompts)
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
