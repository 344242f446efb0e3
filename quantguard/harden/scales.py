"""What holds the scales still: weights that may not move, and how far the others may go, under every scheme at once."""

from __future__ import annotations

import torch
from torch import Tensor

from quantguard.core.scheme import ROUNDINGS
from quantguard.grids.grid import grid_for


def deciding(weight: Tensor) -> Tensor:
    """Weights that decide a scale under any scheme: moving one for this scheme would move the codes of another.

    Bool, the shape of `weight`.
    """
    masks = torch.stack([grid_for(scheme).pinned(weight) for scheme in ROUNDINGS])  # (schemes, rows, columns)
    return masks.any(dim=0)


def furthest(weight: Tensor) -> Tensor:
    """The magnitude that no weight may outgrow, under any scheme: float32, the shape of `weight`.

    A weight may go up one level of its row (INT8) and so past the maximum of its block (NF4, FP4).
    """
    limits = torch.stack([grid_for(scheme).magnitude_limit(weight) for scheme in ROUNDINGS])  # (schemes, rows, columns)
    return limits.amin(dim=0)
