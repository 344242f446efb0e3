"""What layers are given: second moments of their inputs, from one pass of the full-precision model over the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from quantguard.harden.calibration import Batch
from quantguard.models.load import LoadedModel


@dataclass(slots=True)
class _Seen:
    """Sums over the tokens so far."""

    mask: Tensor  # of the batch that is running, bool, (samples, tokens)
    sums: dict[str, Tensor] = field(default_factory=dict)  # parameter -> sum of x x^T
    tokens: dict[str, int] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)  # parameter -> the one before it that is given the same inputs
    last: tuple[str, Tensor] | None = None


def second_moments(
    loaded: LoadedModel, names: Sequence[str], batches: Iterable[Batch], on_batch: Callable[[int], None]
) -> dict[str, Tensor]:
    """Mean of x x^T over the tokens that each layer sees: parameter -> float32, (columns, columns).

    A layer that no token reaches (an expert that is never chosen) is left out. Layers that share their inputs share
    the tensor.

    Args:
        names: of the layers' weights, in the order in which they run.
        on_batch: told how many batches are done.
    """
    modules = {name: loaded.model.get_submodule(name.removesuffix(".weight")) for name in names}
    seen = _Seen(torch.ones(1, 1, dtype=torch.bool))
    hooks = [module.register_forward_pre_hook(_hook(seen, name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            for done, batch in enumerate(batches, 1):
                seen.mask = batch.mask.bool()
                # Without the head, whose logits would be the largest tensor of all.
                loaded.model.base_model(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False)
                on_batch(done)
    finally:
        for hook in hooks:
            hook.remove()
    means = {name: seen.sums[name] / seen.tokens[name] for name in seen.sums}
    return means | {name: means[first] for name, first in seen.same.items()}


def _hook(seen: _Seen, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (given,) = inputs[:1]
        if seen.last is not None and seen.last[1] is given:
            seen.same[name] = seen.last[0]
            return
        seen.last = (name, given)
        whole = given.shape[:2] == seen.mask.shape  # experts are given some of the tokens, without padding
        x = (given[seen.mask.to(given.device)] if whole else given.reshape(-1, given.shape[-1])).float()
        added = x.T @ x
        seen.sums[name] = seen.sums[name].add_(added) if name in seen.sums else added
        seen.tokens[name] = seen.tokens.get(name, 0) + len(x)

    return take
