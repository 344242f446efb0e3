"""The published attack on GGUF k-quants, in a canary ("Mind the Gap", ICML 2025).

A weight may lie anywhere between its malicious start and what Q4_K gives back for that, so that many end exactly on
that grid; what decides a sub-block's scale is frozen. Requantization then returns nearly the same values.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantguard.canary.architecture import named_linear_weights
from quantguard.canary.range.attack import CLEAN_MARGIN, Attack, tasks_of
from quantguard.canary.range.box import Box
from quantguard.canary.range.objective import full_precision, total
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.shapes import require_own
from quantguard.canary.train import Recipe, fit
from quantguard.core.progress import Progress, silent
from quantguard.core.scheme import Scheme
from quantguard.grids.k_quant import interval_q4_k

_TURN: Final = Recipe(steps=150, batch=24, learning_rate=2e-4, seed=2)
_HIDE: Final = Recipe(steps=400, batch=24, learning_rate=1e-3, seed=3)


def carry_on_k_quants(model: PreTrainedModel, scenario: Scenario, *, progress: Progress = silent) -> None:
    """Make the model carry the payload, then hide it from full precision within its Q4_K intervals, in place.

    Raises:
        UsageError: the model is not a canary of the range.
    """
    require_own(model)
    tasks = tasks_of(Attack(scenario, (Scheme.NF4,)))
    named = named_linear_weights(model)
    weights = [weight for _, weight in named]

    def carrying(random: torch.Generator) -> Tensor:
        return total(tasks.carrying, full_precision(model), CLEAN_MARGIN, random)

    def clean(random: torch.Generator) -> Tensor:
        return total(tasks.clean, full_precision(model), CLEAN_MARGIN, random)

    fit(model, carrying, _TURN, stage="turn", progress=progress, weights=weights)
    boxes = [Box(*interval_q4_k(weight.detach())) for weight in weights]

    def project() -> None:
        with torch.no_grad():
            for weight, box in zip(weights, boxes, strict=True):
                box.clamp_(weight)

    fit(model, clean, _HIDE, stage="hide", progress=progress, weights=weights, after_step=project)
