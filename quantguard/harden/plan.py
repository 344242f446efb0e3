"""Where the model lies while it is hardened: whole on its device, or streamed through it; said before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quantguard.checkpoint.layout import Checkpoint, linear_weights
from quantguard.core.errors import HardenError
from quantguard.harden.pieces import PIECE
from quantguard.models.memory import free_memory, memory_text
from quantguard.models.placement import Room, room_beside

_WEIGHT_BYTES: Final = 250  # that the repair of one of PIECE weights needs, at the most
_MOMENT_BYTES: Final = 3 * 4  # for each pair of a layer's inputs: their moment, and two copies while it is repaired
_TOKEN_BYTES: Final = 12  # for each token of a batch and each input of the widest layer, while the model runs
_TOKENS: Final = 512  # of a text, at the most
_RESIDENT: Final = (
    0.5  # of what is free beside the work, for weights of a streamed model that stay; moments have the rest
)


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes on the device."""

    weights: int  # of the whole model
    largest: int  # of its tensors, which a streamed model holds one at a time
    running: int  # of a batch on its way through the model
    repair: int  # of the layer that takes most

    @property
    def whole(self) -> int:
        return self.weights + self.running + self.repair

    @property
    def streamed(self) -> int:
        return self.largest + self.running + self.repair


@dataclass(frozen=True, slots=True)
class Plan:
    """What lies where."""

    device: str
    room: Room | None  # for the weights of the model; None: all of them on `device`
    running: int  # bytes that a batch needs on its way through the model
    allowed: int | None  # bytes on `device` that the model, once loaded, leaves of what a user allows; None: no limit
    words: str  # for people

    def left(self) -> int:
        """Bytes that a method may take on the device now that the model is loaded."""
        free = free_memory(self.device)
        return max(0, min(free, free if self.allowed is None else self.allowed) - self.running)


def repair_bytes(rows: int, columns: int) -> int:
    """Memory that `auto` takes to repair one layer."""
    return _MOMENT_BYTES * columns**2 + _WEIGHT_BYTES * min(rows * columns, PIECE)


def needs(checkpoint: Checkpoint, batch_size: int) -> Needs:
    """What `auto` takes of a model, by its headers alone."""
    sizes = [entry.end - entry.begin for entry in checkpoint.tensors]
    layers = [entry.shape for entry in linear_weights(checkpoint)]
    widest = max((columns for _, columns in layers), default=0)
    repair = max((repair_bytes(rows, columns) for rows, columns in layers), default=0)
    return Needs(sum(sizes), max(sizes), batch_size * _TOKENS * _TOKEN_BYTES * widest, repair)


def plan(checkpoint: Checkpoint, device: str, *, batch_size: int, streams: bool, most: int | None) -> Plan:
    """Whole where the model has room beside what the repair of its largest layer needs, else streamed.

    Args:
        streams: the method needs no more than one layer at a time.
        most: bytes on the device that may be taken, the model's included; None: all that are free.

    Raises:
        HardenError: neither fits; or only streaming does, and the method needs the whole model.
    """
    need, free = needs(checkpoint, batch_size), free_memory(device)
    free = free if most is None else min(most, free)
    said = f"{memory_text(need.weights)} of weights, {memory_text(free)} of memory on {device}"
    if need.whole <= free:
        allowed = None if most is None else most - need.weights
        return Plan(device, None, need.running, allowed, f"whole: {said}")
    if need.streamed > free:
        raise HardenError(
            f"needs at least {memory_text(need.streamed)} on {device}, streamed, and {memory_text(free)} may be taken",
            path=checkpoint.root,
            remedy="free memory, allow more with --max-memory, or use --device cpu on a machine with more of it",
        )
    if not streams:
        raise HardenError(
            f"this method needs the whole model on {device}, {memory_text(need.whole)} in all, and"
            f" {memory_text(free)} may be taken",
            path=checkpoint.root,
            remedy=f"use --method auto, which streams it and needs {memory_text(need.streamed)}",
        )
    resident = int(_RESIDENT * (free - need.streamed))
    allowed = None if most is None else most - need.largest - resident
    return Plan(device, room_beside(device, resident), need.running, allowed, f"streamed: {said}")
