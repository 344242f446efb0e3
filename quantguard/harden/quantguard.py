"""The method of "Breaking the Rounding Trap" (CCS 2026, arXiv 2606.29239).

One variable per weight, all linear layers at once: reversal pulls roundings across the nearest boundary, weighted by
the rounding error; the divergence from the frozen full-precision model and the distance term hold back what would cost
behaviour. The soft weights are what is saved; the stock quantizer does the rest.

A step costs little more than a forward and a backward pass. What the teacher says is computed once for each text, the
soft weights lie in the model's own parameters while it runs, and their gradients are carried on to the variables layer
by layer, where the other two terms are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from quantguard.core.progress import Progress
from quantguard.core.scheme import Scheme
from quantguard.harden.budget import Mode, budget, head_tokens, require_room
from quantguard.harden.calibration import Batch
from quantguard.harden.losses import (
    DISTANCE_SCALE,
    DIVERGENCE_SCALE,
    REVERSAL_SCALE,
    distance,
    divergence,
    reversal,
    variable_gradient,
)
from quantguard.harden.rounding import Rounding, rounding_of, start_of, write_soft
from quantguard.harden.teacher import Teacher
from quantguard.harden.trunk import Parts, checkpointed, in_parts
from quantguard.harden.turns import Choice, Problem, Solution

_LEARNING_RATE: Final = {Scheme.INT8: 0.05, Scheme.FP4: 0.01, Scheme.NF4: 0.01}
_TOLD_EVERY: Final = 10  # steps: the figures that are told take passes over all weights of their own


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer while it is optimised. All tensors have the weight's shape (rows, columns)."""

    rounding: Rounding
    variable: Tensor  # float32
    parameter: nn.Parameter  # of the model: holds `own` or, within `_soft_weights`, `soft`
    own: Tensor  # the model's weight
    soft: Tensor  # its dtype


def quantguard(problem: Problem, progress: Progress) -> Solution:
    """Optimise the rounding of every free weight; see the module.

    Raises:
        HardenError: it needs more memory than is free, said before the first step.
    """
    require_room(problem)
    model = problem.loaded.model
    batches = tuple(problem.batches)
    parts = in_parts(model, batches[0])
    chosen = budget(problem, parts, batches)
    progress("harden, mode", 1, 1, chosen.words)
    layers = {name: _layer(problem, name) for name in problem.weights}
    teacher = Teacher(parts, problem.seen if chosen.keeps_teacher else None)
    with nullcontext() if chosen.mode is Mode.PLAIN else checkpointed(model):
        losses = _optimise(problem, _Run(tuple(layers.values()), parts, teacher, chosen.mode), batches, progress)
    choices = {}
    for name in problem.weights:
        layer = layers.pop(name)
        choices[name] = Choice(layer.rounding.chosen(layer.variable), layer.rounding.soft_weight(layer.variable))
    return Solution(choices, losses, problem.steps)


@dataclass(frozen=True, slots=True)
class _Run:
    layers: tuple[_Layer, ...]
    parts: Parts
    teacher: Teacher
    mode: Mode


def _layer(problem: Problem, name: str) -> _Layer:
    weight, parameter = problem.weights[name], problem.loaded.model.get_parameter(name)
    rounding = rounding_of(problem.grid, weight, problem.frozen[name])
    own = parameter.detach()
    return _Layer(rounding, start_of(problem.grid, weight), parameter, own, torch.empty_like(own))


def _optimise(
    problem: Problem, run: _Run, batches: Sequence[Batch], progress: Progress
) -> tuple[tuple[str, float], ...]:
    """Move the variables; the terms of the loss before the last step."""
    scheme, layers = problem.grid.scheme, run.layers
    pull, hold = REVERSAL_SCALE / len(layers), DISTANCE_SCALE[scheme] / len(layers)
    optimizers = [_optimizer(layer.variable, run.mode, _LEARNING_RATE[scheme]) for layer in layers]
    tokens = head_tokens(problem.loaded.model.config.get_text_config().vocab_size)
    terms: dict[str, float] = {}
    figures = ""
    for step, batch in enumerate(batches, 1):
        target = run.teacher.states(batch)
        with _soft_weights(layers):
            kl = _divergence(run.parts, batch, target, tokens)
        tells = step % _TOLD_EVERY == 1 or step == len(batches)
        if tells:
            terms = {"kl": kl.item(), **_weight_terms(layers, pull, hold)}
        for layer, optimizer in zip(layers, optimizers, strict=True):
            _descend(layer, optimizer, pull=pull, hold=hold)
        if tells:
            losses = " ".join(f"{name} {value:.3g}" for name, value in terms.items())
            figures = f"{losses} flipped {_flipped(layers):.1%} at step {step}"
        progress(f"harden {scheme.value}", step, problem.steps, figures)
    return tuple(terms.items())


def _optimizer(variable: Tensor, mode: Mode, rate: float) -> torch.optim.Optimizer:
    if mode is not Mode.SMALL_STATE:
        return torch.optim.AdamW([variable], lr=rate, fused=True)
    from bitsandbytes.optim import AdamW8bit

    small: torch.optim.Optimizer = AdamW8bit([variable], lr=rate)
    return small


@contextmanager
def _soft_weights(layers: Sequence[_Layer]) -> Iterator[None]:
    """Within it the model has the soft weights, and a backward pass leaves their gradients at its parameters."""
    try:
        for layer in layers:
            write_soft(layer.rounding, layer.variable, layer.soft)
            layer.parameter.data = layer.soft
            layer.parameter.requires_grad_(True)
        yield
    finally:
        for layer in layers:
            layer.parameter.requires_grad_(False)
            layer.parameter.data = layer.own


def _divergence(parts: Parts, batch: Batch, target: Tensor, tokens: int) -> Tensor:
    """The scaled divergence from the teacher, a scalar, with the backward pass done.

    Args:
        target: the teacher's states, (tokens that are no padding, width).
        tokens: whose logits are made at once.
    """
    states = parts.trunk(batch)  # (tokens that are no padding, width)
    total = torch.zeros((), device=states.device)
    slopes: list[Tensor] = []
    for own, other in zip(torch.split(states.detach(), tokens), torch.split(target, tokens), strict=True):
        own.requires_grad_(True)
        with torch.no_grad():
            said = parts.head(other)
        term = divergence(parts.head(own), said) * (DIVERGENCE_SCALE / len(states))
        torch.autograd.backward(term)
        total += term.detach()
        slopes.append(_gradient(own))
    if states.requires_grad:
        torch.autograd.backward(states, torch.cat(slopes))
    return total


def _gradient(tensor: Tensor) -> Tensor:
    """What a backward pass left there; zero where it passed by."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _descend(layer: _Layer, optimizer: torch.optim.Optimizer, *, pull: float, hold: float) -> None:
    slope = _gradient(layer.parameter)  # of an expert that no token reached: zero
    layer.parameter.grad = None
    layer.variable.grad = variable_gradient(layer.rounding, layer.variable, slope, pull=pull, hold=hold)
    optimizer.step()
    layer.variable.grad = None


def _weight_terms(layers: Sequence[_Layer], pull: float, hold: float) -> dict[str, float]:
    """The scaled terms of the loss that do not depend on what the model says."""
    pulled = torch.stack([reversal(layer.rounding, layer.variable) for layer in layers]).sum()
    held = torch.stack([distance(x.rounding, x.rounding.soft_weight(x.variable)) for x in layers]).sum()
    return {"rev": pull * pulled.item(), "dist": hold * held.item()}


def _flipped(layers: Sequence[_Layer]) -> float:
    """Share of all weights whose rounding differs from stock, 0..1."""
    flipped = sum(int(layer.rounding.flipped(layer.variable).sum()) for layer in layers)
    return flipped / sum(layer.variable.numel() for layer in layers)
