"""Untrained canaries of the range, and models that are none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from quantguard.canary.architecture import MARKER, Shape, configuration, named_linear_weights, new_model
from quantguard.canary.range.shapes import LLAMA_64, SHAPES
from quantguard.canary.range.world import vocabulary

SMALL = {name: shape for name, shape in SHAPES.items() if shape.width == 64}  # every family, tied and untied


def canary(shape: Shape = LLAMA_64, seed: int = 1) -> PreTrainedModel:
    return new_model(seed, shape, vocabulary())


def weights_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Copies of what bitsandbytes quantizes, by name."""
    return {name: weight.detach().clone() for name, weight in named_linear_weights(model)}


def state_of(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(model: PreTrainedModel, before: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that are not bit for bit those of `before`."""
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def changed(**settings: object) -> PreTrainedModel:
    """A canary but for `settings` of its configuration."""
    config = configuration(LLAMA_64, vocabulary())
    assert isinstance(config, LlamaConfig)
    for name, value in settings.items():
        setattr(config, name, value)
    return LlamaForCausalLM(config)


def unmarked() -> PreTrainedModel:
    return changed(**{MARKER: False})


def marked_but_deeper() -> PreTrainedModel:
    return changed(num_hidden_layers=4)


def marked_as_text() -> PreTrainedModel:
    return changed(**{MARKER: "true"})


def marked_with_another_vocabulary() -> PreTrainedModel:
    return new_model(0, LLAMA_64, (*vocabulary(), "more"))


def some_llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=128, num_attention_heads=2, num_hidden_layers=2)
    )


def eicar() -> PreTrainedModel:
    return new_model(0)


FOREIGN: list[Callable[[], PreTrainedModel]] = [
    unmarked,
    marked_but_deeper,
    marked_with_another_vocabulary,
    marked_as_text,
    some_llama,
    eicar,
]
