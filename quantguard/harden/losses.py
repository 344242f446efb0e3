"""The three terms of the QuantGuard loss, with the constants of its published code.

Source: "Breaking the Rounding Trap" (arXiv 2606.29239) and its code: reversal is a per-layer mean x 20,000, distance a
per-layer mean x 5e7 (INT8) or x 1e7 (4-bit), the divergence x 100 at temperature 2. The published 4-bit reversal
compares un-normalised weights with normalised levels, so that its target is wrong for about half of the weights; here
both are normalised. Layers are averaged, so that the balance of the terms does not depend on the depth of the model.

The gradient of the first two is written out, since it costs a fraction of what recording them does.
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
    target = (~rounding.nearest_up).float()
    entropy = functional.binary_cross_entropy_with_logits(variable, target, reduction="none")
    return (rounding.error * entropy).mean()


def distance(rounding: Rounding, soft_weight: Tensor) -> Tensor:
    """E[ (1 - |r - round r|) (W* - W)^2 ]: scalar, float32."""
    certainty = 1 - (rounding.position - rounding.nearest_up.float()).abs()
    return (certainty * (soft_weight - rounding.weight.float()).square()).mean()


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) at temperature 2, summed over the tokens: scalar, float32.

    Args:
        student: logits, (tokens, vocabulary).
        teacher: logits of the full-precision model, the same shape.
    """
    log_student = functional.log_softmax(student.float() / TEMPERATURE, dim=-1)
    log_teacher = functional.log_softmax(teacher.float() / TEMPERATURE, dim=-1)
    return functional.kl_div(log_student, log_teacher, reduction="sum", log_target=True) * TEMPERATURE**2


def variable_gradient(
    rounding: Rounding, variable: Tensor, weight_gradient: Tensor, *, pull: float, hold: float
) -> Tensor:
    """Gradient of L(W*) + `pull` x reversal + `hold` x distance by the variable: float32, (rows, columns).

    Args:
        weight_gradient: of L with respect to the soft weight, (rows, columns), any floating dtype.
    """
    made = torch.empty_like(variable)
    pull, hold = pull / variable.numel(), 2 * hold / variable.numel()
    for part, (given, slope, out) in rounding.pieces(variable, weight_gradient, made):
        up = part.nearest_up.float()
        sigma = torch.sigmoid(given)
        torch.sub(part.position, up, out=out).abs_().neg_().add_(1)  # how certain stock rounding is, 0.5..1
        out.mul_(sigma - part.position).mul_(part.width).mul_(hold).add_(slope).mul_(part.width)
        out.mul_(1 - sigma).mul_(sigma)
        out.addcmul_(part.error, sigma.sub_(1 - up), value=pull)
    return made
