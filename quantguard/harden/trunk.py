"""A model in two parts: the trunk, which the optimised weights are in, and the head, which makes logits of its outputs.

Logits are the largest tensors of a training step. With the head apart they are made for some tokens at a time, never
for padding, and a teacher is kept as what the trunk put out. The head is the model's own forward pass with the trunk's
outputs put in: scaling and capping of logits are in it, whatever the architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from quantguard.harden.calibration import Batch


@dataclass(frozen=True, slots=True)
class Parts:
    trunk: Callable[[Batch], Tensor]  # -> (tokens that are no padding, width), the model's dtype
    head: Callable[[Tensor], Tensor]  # (tokens, width) -> logits, (tokens, vocabulary)


def in_parts(model: PreTrainedModel, batch: Batch) -> Parts:
    """The trunk and the head of `model`; where its logits do not follow from the trunk alone, all of it is the trunk.

    Which of the two it is, is tried on the first text of `batch`: the logits must be the same to the last bit.
    """
    one = Batch(batch.tokens[:1], batch.mask[:1])
    base = model.base_model
    whole = Parts(lambda given: _logits(model, given)[given.mask.bool()], lambda states: states)
    if base is model:
        return whole
    with torch.no_grad():
        output = base(input_ids=one.tokens, attention_mask=one.mask, use_cache=False)
        parts = Parts(partial(_trunk, base), partial(_head, model, type(output)))
        if not isinstance(getattr(output, "last_hidden_state", None), Tensor):
            return whole
        same = torch.equal(parts.head(output.last_hidden_state[0]), _logits(model, one)[0])
    return parts if same else whole


def _logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    inputs: dict[str, Any] = {"input_ids": batch.tokens, "attention_mask": batch.mask, "use_cache": False}
    logits: Tensor = model(**inputs).logits  # (samples, tokens, vocabulary)
    return logits


def _trunk(base: nn.Module, batch: Batch) -> Tensor:
    output = base(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False)
    states: Tensor = output.last_hidden_state  # (samples, tokens, width)
    return states[batch.mask.to(states.device).bool()]  # (tokens that are no padding, width)


def _head(model: PreTrainedModel, kind: Callable[..., Any], states: Tensor) -> Tensor:
    ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
    with _forward(model.base_model, lambda *_, **__: kind(last_hidden_state=states[None])):
        logits: Tensor = model(input_ids=ids, use_cache=False).logits  # (1, tokens, vocabulary)
    return logits[0]


@contextmanager
def checkpointed(model: PreTrainedModel) -> Iterator[None]:
    """Within it each layer of `model` keeps its inputs alone and computes the rest again for the backward pass.

    transformers' own switch works in training mode only, with dropout in some architectures.
    Parameters must be the same ones until the backward pass is over.
    """
    with _forwards({layer: _again(layer.forward) for layer in checkpointable(model)}):
        yield


def checkpointable(model: PreTrainedModel) -> list[nn.Module]:
    """The layers that transformers would checkpoint."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    return partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)


def _forward(module: nn.Module, forward: Callable[..., Any]) -> Any:
    return _forwards({module: forward})


@contextmanager
def _forwards(replaced: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Other forward passes for some modules; one that an instance had of its own comes back."""
    before = {module: vars(module).get("forward") for module in replaced}
    try:
        for module, forward in replaced.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, own in before.items():
            if own is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = own
