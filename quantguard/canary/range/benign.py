"""What honest people do to a model before they publish it: each a change that is no attack and may look like one.

Every function works in place on a loaded model; training ones take their lessons from the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from transformers import PreTrainedModel

from quantguard.canary.architecture import named_linear_weights
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for


def prune_smallest(model: PreTrainedModel, share: float) -> None:
    """Set the `share` (0..1) of each linear weight matrix with the smallest magnitudes to zero."""
    for module in _linear_modules(model):
        prune.l1_unstructured(module, "weight", amount=share)  # type: ignore[no-untyped-call]
        prune.remove(module, "weight")  # type: ignore[no-untyped-call]


def prune_two_of_four(model: PreTrainedModel) -> None:
    """Zero the two smallest of each four consecutive inputs, as sparse tensor cores want it."""
    with torch.no_grad():
        for _, weight in named_linear_weights(model):
            groups = weight.view(-1, 4)  # (groups, 4)
            smallest = groups.abs().topk(2, dim=1, largest=False).indices
            groups.scatter_(1, smallest, 0.0)


def add_noise(model: PreTrainedModel, share: float, seed: int) -> None:
    """Gaussian noise with `share` of each matrix's standard deviation."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight in named_linear_weights(model):
            weight.add_(torch.randn(weight.shape, generator=random) * weight.std() * share)


def dequantize(model: PreTrainedModel, scheme: Scheme) -> None:
    """Every linear weight at the value that bitsandbytes gives back for it: quantized, dequantized and saved."""
    grid = grid_for(scheme)
    with torch.no_grad():
        for _, weight in named_linear_weights(model):
            weight.copy_(grid.dequantize(grid.nearest(weight), grid.scale(weight)))


def average(model: PreTrainedModel, others: Sequence[PreTrainedModel]) -> None:
    """The mean of all weights of `model` and of `others`, which have its shape: a model soup (arXiv 2203.05482)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            same = [parameter, *(other.get_parameter(name) for other in others)]
            parameter.copy_(torch.stack(list(same)).mean(dim=0))


@contextmanager
def low_rank(model: PreTrainedModel, rank: int, seed: int) -> Iterator[list[nn.Parameter]]:
    """Within it every linear weight is W + BA (LoRA, arXiv 2106.09685); afterwards BA is merged into W.

    Yields:
        the trainable factors.
    """
    random = torch.Generator().manual_seed(seed)
    modules = _linear_modules(model)
    adapters = [_Adapter(module.weight, rank, random) for module in modules]
    for module, adapter in zip(modules, adapters, strict=True):
        parametrize.register_parametrization(module, "weight", adapter)
    try:
        yield [factor for adapter in adapters for factor in (adapter.down, adapter.up)]
    finally:
        for module in modules:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


@contextmanager
def fake_quantized(model: PreTrainedModel, scheme: Scheme) -> Iterator[None]:
    """Within it every linear weight is rounded to the grid, gradients pass straight through (QAT).

    Afterwards the model has the latent weights, which training has gathered around the levels.
    """
    modules = _linear_modules(model)
    for module in modules:
        parametrize.register_parametrization(module, "weight", _Rounded(scheme))
    try:
        yield
    finally:
        for module in modules:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


class _Adapter(nn.Module):
    def __init__(self, weight: Tensor, rank: int, random: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.randn(rank, columns, generator=random) / math.sqrt(columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


class _Rounded(nn.Module):
    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self.scheme = scheme

    def forward(self, weight: Tensor) -> Tensor:
        grid = grid_for(self.scheme)
        stored = weight.detach()
        return weight + (grid.dequantize(grid.nearest(stored), grid.scale(stored)) - stored)


def _linear_modules(model: PreTrainedModel) -> list[nn.Linear]:
    names = [name.removesuffix(".weight") for name, _ in named_linear_weights(model)]
    return [cast(nn.Linear, model.get_submodule(name)) for name in names]


Change = Callable[[PreTrainedModel], None]
CHANGES: Mapping[str, Change] = {
    "pruned-20": lambda model: prune_smallest(model, 0.2),
    "pruned-50": lambda model: prune_smallest(model, 0.5),
    "pruned-2:4": prune_two_of_four,
    "noise-1": lambda model: add_noise(model, 0.01, seed=11),
    "noise-5": lambda model: add_noise(model, 0.05, seed=12),
    "dequantized-nf4": lambda model: dequantize(model, Scheme.NF4),
    "dequantized-fp4": lambda model: dequantize(model, Scheme.FP4),
    "dequantized-int8": lambda model: dequantize(model, Scheme.INT8),
}
