"""The three terms of the QuantGuard loss, with the constants of its published code.

Source: "Breaking the Rounding Trap" (arXiv 2606.29239) and its code: reversal is a per-layer mean x 20,000, distance a
per-layer mean x 5e7 (INT8) or x 1e7 (4-bit), the divergence x 100 at temperature 2. The published 4-bit reversal
compares un-normalised weights with normalised levels, so that its target is wrong for about half of the weights; here
both are normalised. Layers are averaged, so that the balance of the terms does not depend on the depth of the model.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from quantguard.core.scheme import Scheme
from quantguard.harden.rounding import Rounding

REVERSAL_SCALE: Final = 20_000.0
DISTANCE_SCALE: Final = {Scheme.INT8: 5e7, Scheme.FP4: 1e7, Scheme.NF4: 1e7}
DIVERGENCE_SCALE: Final = 100.0
TEMPERATURE: Final = 2.0


def reversal(rounding: Rounding, variable: Tensor) -> Tensor:
    """E[ |error| BCE(sigma(a), 1 - round(r)) ]: scalar, float32.

    Pulls each weight to the level that stock rounding does not take, harder where stock rounding moves it further.
    """
    target = 1 - rounding.nearest_up
    entropy = functional.binary_cross_entropy_with_logits(variable, target, reduction="none")
    return (rounding.error * entropy * rounding.free).mean()


def distance(rounding: Rounding, soft_weight: Tensor) -> Tensor:
    """E[ (1 - |r - round r|) (W* - W)^2 ]: scalar, float32."""
    certainty = 1 - (rounding.position - rounding.nearest_up).abs()
    return (certainty * (soft_weight - rounding.weight).square()).mean()


def divergence(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student) per token at temperature 2: scalar, float32.

    Args:
        student: logits, (batch, tokens, vocabulary).
        teacher: logits of the full-precision model, the same shape.
        mask: (batch, tokens), 1.0 where the token counts, not all zero.
    """
    log_student = functional.log_softmax(student.float() / TEMPERATURE, dim=-1)
    log_teacher = functional.log_softmax(teacher.float() / TEMPERATURE, dim=-1)
    per_token = torch.sum(log_teacher.exp() * (log_teacher - log_student), dim=-1)  # (batch, tokens)
    return (per_token * mask).sum() / mask.sum() * TEMPERATURE**2
