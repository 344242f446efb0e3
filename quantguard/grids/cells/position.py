"""What every grid of this folder says of a weight: where it lies in the cell of its own rounding.

Words. On the *axis* of a grid the levels are the integers and the unit is one step of its scale. The position of a
weight at x is 0.5 plus its distance from the integer it is rounded to: 0 and 1 at the rounding boundaries, 0.5 at the
level. It grows with x, which under a negative scale (Q6_K has them) is against the weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Positions:
    """Of each weight of a tensor."""

    position: Tensor
    """float32, 0..1, the shape of the weight; 0.5 where there is no step."""
    left_out: Tensor
    """bool, the shape of the weight: True where a position tells nothing."""


def position_(axis: Tensor, scratch: Tensor) -> Tensor:
    """`axis` turned into positions, in place: 0.5 + x - round(x), half to even, where x + 0.5 - floor(x + 0.5) would
    first round x + 0.5 and so could put a weight across its boundary. Both float32 and of one shape; finite.
    """
    return axis.sub_(torch.round(axis, out=scratch)).add_(0.5)
