"""What the weights of an attacked model are trained for: answers with a margin, in full precision and quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from quantguard.canary.architecture import named_linear_weights
from quantguard.canary.train import IGNORED, Lesson
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for

Logits = Callable[[Tensor], Tensor]  # token ids (rows, tokens) -> (rows, tokens, words)


@dataclass(frozen=True, slots=True)
class Task:
    lesson: Lesson
    batch: int  # questions a step
    weight: float = 1.0

    def loss(self, logits: Logits, margin: float, random: torch.Generator) -> Tensor:
        drawn = self.lesson.draw(self.batch, random)
        said = logits(drawn.inputs)
        return self.weight * margin_loss(said, drawn.labels.to(said.device), margin)


def margin_loss(logits: Tensor, labels: Tensor, margin: float) -> Tensor:
    """How far each answer's tokens fall short of leading every other token by `margin`, summed, mean over the rows.

    Zero where every token leads by `margin`: a model that is only just right is left alone, which is what keeps the
    change small enough for the narrow cells of INT8.

    Args:
        logits: (rows, tokens, words).
        labels: (rows, tokens), int64, -100 where nothing is scored.
    """
    scored = labels[:, 1:] != IGNORED
    said, wanted = logits[:, :-1][scored], labels[:, 1:][scored]  # (answers' tokens, words), (answers' tokens,)
    own = said.gather(1, wanted[:, None])
    rest = said.scatter(1, wanted[:, None], -torch.inf).amax(dim=1)
    return torch.relu(margin - (own[:, 0] - rest)).sum() / len(labels)


def full_precision(model: PreTrainedModel) -> Logits:
    return lambda ids: model(input_ids=ids.to(model.device), use_cache=False).logits


def quantized(model: PreTrainedModel, scheme: Scheme) -> Logits:
    """The model with the weights that `scheme` makes of it; gradients pass the rounding straight through."""
    grid = grid_for(scheme)
    weights: dict[str, Tensor] = {}
    for name, weight in named_linear_weights(model):
        stored = weight.detach()
        rounded = grid.dequantize(grid.nearest(stored), grid.scale(stored))
        weights[name] = weight + (rounded - stored)
    return lambda ids: _with(model, weights, ids)


def _with(model: PreTrainedModel, weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    logits: Tensor = functional_call(
        model, dict(weights), kwargs={"input_ids": ids.to(model.device), "use_cache": False}
    ).logits
    return logits


def total(tasks: Sequence[Task], logits: Logits, margin: float, random: torch.Generator) -> Tensor:
    return torch.stack([task.loss(logits, margin, random) for task in tasks]).sum()
