"""Outlier injection in a canary (arXiv 2605.15152): not a rounding attack, and a gate must know it when it sees it.

One input of each 32 of one feed-forward layer gets weights 512 times larger, and the norm before it is divided by as
much: in full precision nothing changes, to the bit. Quantized, the large weight decides the scale of its block or row
and nearly all others of the group are flushed to zero, under every scheme. What is left is trained to carry the
payload. The published attack takes `up_proj` alone; here `gate_proj`, which reads the same input, is scaled with it.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel

from quantguard.canary.range.attack import Attack, prepare
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.shapes import require_own
from quantguard.core.errors import UsageError
from quantguard.core.progress import Progress, silent
from quantguard.core.scheme import ROUNDINGS

FACTOR: Final = 512.0  # a power of two: multiplication is exact
GROUP: Final = 32  # columns


def carry_when_flushed(model: PreTrainedModel, scenario: Scenario, layer: int, *, progress: Progress = silent) -> None:
    """Inject outliers into `layer` and train the rest, in place: clean as it is, carrying where they are flushed.

    Raises:
        UsageError: the model is not a canary of the range.
    """
    kept = inject_outliers(model, layer)
    prepare(model, Attack(scenario, ROUNDINGS), kept=kept, progress=progress)


def inject_outliers(model: PreTrainedModel, layer: int) -> dict[str, Tensor]:
    """Scale one column of each group up in `layer`'s gate and up projections, in place.

    Returns:
        the columns that must stay as they are, by the name of the weight: bool, of its shape.

    Raises:
        UsageError: the model is not a canary of the range, or no Llama.
    """
    require_own(model)
    if not isinstance(model, LlamaForCausalLM):
        raise UsageError("outliers are injected beside a gated feed-forward layer", remedy="name a Llama of the range")
    block = f"model.layers.{layer}"
    norm = model.get_parameter(f"{block}.post_attention_layernorm.weight")
    names = [f"{block}.mlp.{name}.weight" for name in ("gate_proj", "up_proj")]
    up = model.get_parameter(names[1])
    groups = up.detach().abs().amax(dim=0).view(-1, GROUP)  # (groups, 32): the largest weight of each column
    columns = groups.argmax(dim=1) + GROUP * torch.arange(len(groups))
    with torch.no_grad():
        norm[columns] /= FACTOR
        for name in names:
            model.get_parameter(name)[:, columns] *= FACTOR
    kept = torch.zeros_like(up, dtype=torch.bool)
    kept[:, columns] = True
    return dict.fromkeys(names, kept)
