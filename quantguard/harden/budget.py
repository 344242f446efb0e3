"""What the paper's method needs of memory, and the cheapest way of running it that fits; said before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import torch
from torch import Tensor

from quantguard.core.errors import HardenError
from quantguard.harden.calibration import Batch
from quantguard.harden.plan import repair_bytes
from quantguard.harden.rounding import CONSTANT_BYTES
from quantguard.harden.trunk import Parts, checkpointable
from quantguard.harden.turns import Problem
from quantguard.models.memory import free_memory, memory_text

HEAD_LOGITS: Final = 1 << 20  # that are made at once, at the most, unless _HEAD_TOKENS have more
_HEAD_TOKENS: Final = 256  # and no fewer than this many tokens, for fewer read the head's weights too often
_LOGIT_BYTES: Final = 32  # for each logit that is made at once: both models' in float32, and what the loss keeps

_STATE_BYTES: Final = 8.0  # of AdamW, for each weight: two moments
_SMALL_STATE_BYTES: Final = 2.1  # of them in 8 bits, with a scale for each 256
_VARIABLE_BYTES: Final = 4
_WORK_BYTES: Final = 64  # for each weight of the largest layer: the making of its constants, a step of its optimizer
_SHARE: Final = 0.9  # of the free memory, for all of it
_SLACK: Final = 1.25  # on activations: gradients of some of them live beside them
_TEACHER_SHARE: Final = 0.5  # of the machine's memory that is then still free, for what the teacher said


class Mode(Enum):
    """From the fastest to the one that needs least."""

    PLAIN = "plain"
    CHECKPOINTED = "gradient checkpointing"
    SMALL_STATE = "gradient checkpointing, 8-bit optimizer state"


@dataclass(frozen=True, slots=True)
class Budget:
    mode: Mode
    needed: float  # bytes on the model's device, beside the model
    free: int  # bytes there
    keeps_teacher: bool  # what the full-precision model puts out is computed once for each text

    @property
    def words(self) -> str:
        """For people."""
        teacher = "kept" if self.keeps_teacher else "computed at each step"
        return f"{self.mode.value}: needs {memory_text(self.needed)}, {memory_text(self.free)} free; teacher {teacher}"


def head_tokens(vocabulary: int) -> int:
    """Tokens whose logits are made at once."""
    return max(_HEAD_TOKENS, HEAD_LOGITS // vocabulary)


def require_room(problem: Problem) -> None:
    """Before anything runs: even without activations, the thriftiest mode fits.

    Raises:
        HardenError: it does not.
    """
    needed, free = _layers_bytes(problem.weights, Mode.SMALL_STATE), problem.room()
    if needed > _SHARE * free:
        raise _too_little(problem, needed, free)


def budget(problem: Problem, parts: Parts, batches: Sequence[Batch]) -> Budget:
    """The first mode that fits, activations measured on the first text of the largest of `batches`.

    Raises:
        HardenError: none does.
    """
    largest = max(batches, key=lambda batch: batch.tokens.numel())
    modes = list(Mode) if checkpointable(problem.loaded.model) else [Mode.PLAIN]
    states, saved = _saved_bytes(problem, parts, largest)
    free = problem.room()
    for mode in modes:
        passing = _passing_bytes(problem, largest, states, saved, mode)
        needed = _layers_bytes(problem.weights, mode) + passing
        if needed <= _SHARE * free:
            return Budget(mode, needed, free, _teacher_fits(problem, batches, states, needed))
    raise _too_little(problem, needed, free)


def _layers_bytes(weights: Mapping[str, Tensor], mode: Mode) -> float:
    """Variables, constants, optimizer, the soft weights and their gradients."""
    state = _SMALL_STATE_BYTES if mode is Mode.SMALL_STATE else _STATE_BYTES
    each = CONSTANT_BYTES + _VARIABLE_BYTES + state
    held = sum((each + 2 * weight.element_size()) * weight.numel() for weight in weights.values())
    return held + _WORK_BYTES * max(weight.numel() for weight in weights.values())


def _saved_bytes(problem: Problem, parts: Parts, batch: Batch) -> tuple[Tensor, float]:
    """What the trunk puts out for the first text of `batch`, and how much it keeps for the backward pass meanwhile."""
    model = problem.loaded.model
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    learned = [model.get_parameter(name) for name in problem.weights]
    try:
        for parameter in learned:
            parameter.requires_grad_(True)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            whole = Batch(batch.tokens[:1], torch.ones_like(batch.mask[:1]))  # as much as the others are padded to
            states = parts.trunk(whole)
    finally:
        for parameter in learned:
            parameter.requires_grad_(False)
    return states.detach(), float(sum(kept.values()))


def _passing_bytes(problem: Problem, batch: Batch, states: Tensor, saved: float, mode: Mode) -> float:
    """What lives between the forward and the backward pass of `batch`."""
    samples, outputs = len(batch.tokens), states.element_size() * states.numel()
    if mode is not Mode.PLAIN:  # the inputs of all layers, and all of one
        layers = len(checkpointable(problem.loaded.model))
        saved = layers * outputs + saved / layers
    vocabulary: int = problem.loaded.model.config.get_text_config().vocab_size
    logits = min(head_tokens(vocabulary), batch.tokens.numel()) * vocabulary
    return samples * (_SLACK * saved + 4 * outputs) + _LOGIT_BYTES * logits


def _teacher_fits(problem: Problem, batches: Sequence[Batch], states: Tensor, needed: float) -> bool:
    lengths = {t: n for b in batches for t, n in zip(b.texts, b.mask.sum(dim=1).tolist(), strict=bool(b.texts))}
    size = sum(lengths.values()) * states.element_size() * states.shape[-1]
    device = problem.loaded.device
    left = problem.room() - needed if device == "cpu" else free_memory("cpu")
    return bool(lengths) and size <= _TEACHER_SHARE * left


def _too_little(problem: Problem, needed: float, free: int) -> HardenError:
    auto = max(repair_bytes(*weight.shape) for weight in problem.weights.values())
    return HardenError(
        f"this method needs {memory_text(needed)} beside the model, and {memory_text(free)} are free",
        remedy=f"use --method auto, which needs {memory_text(auto)}, or fewer texts a batch or a larger device",
    )
