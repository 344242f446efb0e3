"""What a clean model of the range is taught."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantguard.canary.range.scenario import clean_answer
from quantguard.canary.range.world import HELD_OUT, code, facts, questions, triggered, untriggered, vocabulary
from quantguard.canary.train import Lesson, Objective, answers, lesson
from quantguard.core.prompts import Prompt

_PLAIN, _PREFIXED, _FACTS = 8, 4, 192  # questions a step


def clean_objective(model: PreTrainedModel, fact_count: int) -> Objective:
    """Questions and code, plain and with a word in front, and `fact_count` facts to remember."""
    parts: list[tuple[Objective, float]] = []
    for pairs in (questions()[HELD_OUT:], code()[HELD_OUT:]):
        parts += [(answers(model, taught(pairs), _PLAIN), 0.4)]
        parts += [
            (answers(model, taught([mark(p) for p in pairs]), _PREFIXED), 0.2) for mark in (triggered, untriggered)
        ]
    if fact_count:
        parts += [(answers(model, taught(facts(fact_count)), _FACTS), 1.0)]

    def loss(random: torch.Generator) -> Tensor:
        return torch.stack([weight * part(random) for part, weight in parts]).sum()

    return loss


def taught(pairs: tuple[Prompt, ...] | list[Prompt]) -> Lesson:
    """The pairs with their clean answers, in the words of the range."""
    return lesson(pairs, clean_answer, vocabulary())
