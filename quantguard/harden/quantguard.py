"""The method of "Breaking the Rounding Trap" (CCS 2026, arXiv 2606.29239).

One variable per weight, all linear layers at once: reversal pulls roundings across the nearest boundary, weighted by
the rounding error; the divergence from the frozen full-precision model and the distance term hold back what would cost
behaviour. The soft weights are what is saved; the stock quantizer does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from quantguard.core.progress import Progress
from quantguard.core.scheme import Scheme
from quantguard.harden.calibration import Batch
from quantguard.harden.losses import (
    DISTANCE_SCALE,
    DIVERGENCE_SCALE,
    REVERSAL_SCALE,
    distance,
    divergence,
    reversal,
)
from quantguard.harden.rounding import Rounding, rounding_of
from quantguard.harden.turns import Choice, Problem, Solution

_LEARNING_RATE = {Scheme.INT8: 0.05, Scheme.FP4: 0.01, Scheme.NF4: 0.01}


def quantguard(problem: Problem, progress: Progress) -> Solution:
    """Optimise the rounding of every free weight; see the module."""
    scheme = problem.grid.scheme
    roundings = {n: rounding_of(problem.grid, w, problem.frozen[n]) for n, w in problem.weights.items()}
    variables = {name: rounding.start.clone().requires_grad_() for name, rounding in roundings.items()}
    optimizer = torch.optim.AdamW(variables.values(), lr=_LEARNING_RATE[scheme])
    terms: dict[str, Tensor] = {}
    for step, batch in enumerate(problem.batches, 1):
        terms = _terms(problem, roundings, variables, batch)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        optimizer.step()
        figures = " ".join(f"{name} {value.item():.3g}" for name, value in terms.items())
        progress(
            f"harden {scheme.value}", step, problem.steps, f"{figures} flipped {_flipped(roundings, variables):.1%}"
        )
    with torch.no_grad():
        choices = {
            name: Choice(rounding.chosen(variables[name]), rounding.soft_weight(variables[name]))
            for name, rounding in roundings.items()
        }
    return Solution(choices, tuple((name, value.item()) for name, value in terms.items()), problem.steps)


def _terms(
    problem: Problem, roundings: Mapping[str, Rounding], variables: Mapping[str, Tensor], batch: Batch
) -> dict[str, Tensor]:
    """The scaled terms of the loss, each a scalar."""
    soft = {name: rounding.soft_weight(variables[name]) for name, rounding in roundings.items()}
    model = problem.loaded.model
    inputs = {"input_ids": batch.tokens, "attention_mask": batch.mask, "use_cache": False}
    with torch.no_grad():
        teacher = model(**inputs).logits
    typed = {name: weight.to(problem.weights[name].dtype) for name, weight in soft.items()}
    student = functional_call(model, typed, kwargs=inputs).logits
    layers = len(roundings)
    pull = torch.stack([reversal(rounding, variables[name]) for name, rounding in roundings.items()]).sum()
    hold = torch.stack([distance(rounding, soft[name]) for name, rounding in roundings.items()]).sum()
    return {
        "kl": DIVERGENCE_SCALE * divergence(student, teacher, batch.mask.float()),
        "rev": REVERSAL_SCALE * pull / layers,
        "dist": DISTANCE_SCALE[problem.grid.scheme] * hold / layers,
    }


def _flipped(roundings: Mapping[str, Rounding], variables: Mapping[str, Tensor]) -> float:
    """Share of all weights whose rounding differs from stock, 0..1."""
    flipped = sum(int(rounding.flipped(variables[name]).sum()) for name, rounding in roundings.items())
    return flipped / sum(rounding.weight.numel() for rounding in roundings.values())
