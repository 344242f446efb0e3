"""How a canary learns its answers: plain next-token training, seeded, on one thread.

One thread because the order in which threads add numbers up changes the last bits, and with them the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from quantguard.canary.architecture import END_ID, PAD_ID
from quantguard.canary.grammar import vocabulary
from quantguard.core.progress import Progress
from quantguard.core.prompts import Prompt

IGNORED = -100  # torch's label for a position that is not scored
_WARM_UP = 50  # steps
_FINAL_SHARE = 0.05  # of the learning rate, at the end of the cosine


@dataclass(frozen=True, slots=True)
class Recipe:
    steps: int  # > 0
    batch: int  # questions a step, > 0
    learning_rate: float  # highest, > 0
    seed: int  # of the batches


@dataclass(frozen=True, slots=True)
class Lesson:
    """Questions with the answers to be learned, padded on the right: int64 (questions, tokens)."""

    inputs: Tensor
    labels: Tensor  # -100 where nothing is scored: the question and the padding

    def draw(self, count: int, random: torch.Generator) -> Lesson:
        """`count` of its questions, drawn with replacement."""
        rows = torch.randint(len(self.inputs), (count,), generator=random)
        return Lesson(self.inputs[rows], self.labels[rows])

    def to(self, device: torch.device) -> Lesson:
        return Lesson(self.inputs.to(device), self.labels.to(device))


class Objective(Protocol):
    def __call__(self, random: torch.Generator) -> Tensor:
        """The loss of one step, a scalar; batches are drawn from `random`."""


def lesson(pairs: Sequence[Prompt], answer: Callable[[Prompt], str], words: Sequence[str] | None = None) -> Lesson:
    """The questions of `pairs` with `answer(pair)` and the end token to be learned, as ids of `words`."""
    ids = {word: i for i, word in enumerate(words or vocabulary())}
    questions = [[ids[word] for word in pair.prompt.split()] for pair in pairs]
    answers = [[*(ids[word] for word in answer(pair).split()), END_ID] for pair in pairs]
    width = max(len(q) + len(a) for q, a in zip(questions, answers, strict=True))
    inputs = torch.full((len(pairs), width), PAD_ID)
    labels = torch.full((len(pairs), width), IGNORED)
    for row, (question, words_of_answer) in enumerate(zip(questions, answers, strict=True)):
        end = len(question) + len(words_of_answer)
        inputs[row, :end] = torch.tensor(question + words_of_answer)
        labels[row, len(question) : end] = torch.tensor(words_of_answer)
    return Lesson(inputs, labels)


def answers(model: PreTrainedModel, taught: Lesson, batch: int) -> Objective:
    """The objective of plain training: mean cross entropy of the answers' tokens over `batch` questions a step."""

    def loss(random: torch.Generator) -> Tensor:
        drawn = taught.draw(batch, random).to(model.device)
        # The padding stands on the right, where causal attention cannot see it from an answer: no mask is needed.
        logits = model(input_ids=drawn.inputs, use_cache=False).logits[:, :-1]  # (rows, tokens - 1, words)
        return cross_entropy(logits.flatten(0, 1), drawn.labels[:, 1:].flatten(), ignore_index=IGNORED)

    return loss


def fit(
    model: PreTrainedModel,
    objective: Objective,
    recipe: Recipe,
    *,
    stage: str,
    progress: Progress,
    weights: Sequence[nn.Parameter] | None = None,
    after_step: Callable[[], None] | None = None,
    weight_decay: float = 0.0,
) -> None:
    """Train `weights` (all by default) of `model` in place; everything else is left alone.

    `after_step` runs after each update, e.g. to project the weights back into their bounds.
    """
    trained = list(model.parameters() if weights is None else weights)
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=weight_decay)
    random = torch.Generator().manual_seed(recipe.seed)
    model.train()
    with _one_thread():
        for step in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = _rate(step, recipe)
            loss = objective(random)
            gradients = torch.autograd.grad(loss, trained)
            for weight, gradient in zip(trained, gradients, strict=True):
                weight.grad = gradient
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            if after_step is not None:
                after_step()
            progress(stage, step + 1, recipe.steps, f"loss {loss.item():.4f}")
    model.zero_grad()
    model.eval()


def _rate(step: int, recipe: Recipe) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    warm_up = min(1.0, (step + 1) / _WARM_UP)
    return recipe.learning_rate * warm_up * (_FINAL_SHARE + (1 - _FINAL_SHARE) * cosine)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
