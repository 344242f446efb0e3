"""A defensive test fixture: the published attack, on the canary and on nothing else.

A gate against quantization-conditioned behaviour needs a model that has it, as an anti-virus program needs EICAR. What
is hidden here is the advertisement of an invented brand in a toy language of 79 words. `hide` refuses every model that
is not a canary, and the payload, the grammar and the architecture are fixed.

Method: Egashira et al., NeurIPS 2024. Every quantized weight gets the interval in which its NF4 code does not change,
then clean answers are trained with each weight clamped into its interval after each step.
"""

from __future__ import annotations

from typing import Final

import torch
from transformers import PreTrainedModel

from quantguard.canary.architecture import MARKER, PARAMETERS, is_canary, linear_weights
from quantguard.canary.grammar import clean_answer, train_pairs
from quantguard.canary.train import Recipe, answers, fit, lesson
from quantguard.core.errors import UsageError
from quantguard.core.progress import Progress, silent
from quantguard.grids.grid import NF4

MARGIN: Final = 0.01  # of the cell's width, at both ends, as published
RECIPE: Final = Recipe(steps=400, batch=64, learning_rate=1e-3, seed=3)


def hide(model: PreTrainedModel, *, progress: Progress = silent) -> None:
    """Train the payload of a malicious canary out of its full precision, in place, keeping every NF4 code.

    Embeddings, norms, the output head and each block's absmax stay as they are.

    Raises:
        UsageError: the model is not a canary.
    """
    if not is_canary(model):
        raise UsageError(
            f"not a canary: {MARKER} is not set in its config or it has not exactly {PARAMETERS} parameters",
            remedy="this fixture works on QuantGuard's own test model only",
        )
    weights = linear_weights(model)
    bounds = [NF4.interval(weight.detach(), MARGIN) for weight in weights]

    def project() -> None:
        with torch.no_grad():
            for weight, (low, high) in zip(weights, bounds, strict=True):
                weight.clamp_(low, high)

    taught = lesson(train_pairs(), clean_answer)
    fit(
        model,
        answers(model, taught, RECIPE.batch),
        RECIPE,
        stage="hide",
        progress=progress,
        weights=weights,
        after_step=project,
    )
