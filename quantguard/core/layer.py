"""What the scan measured on one weight under one grid, whether or not it is a finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

POSITION_BINS: Final = 64  # equal bins over the cell, from its lower boundary to its upper
ALL_WEIGHTS: Final = "all linear weights"  # the name of a LayerScan of every linear weight, laid over one another


@dataclass(frozen=True, slots=True)
class PositionHistogram:
    """Where in their cells the weights lie, before any smoothing, and where honest ones would."""

    observed: tuple[int, ...]  # weights in each of POSITION_BINS bins
    expected: tuple[float, ...]  # what the smooth density of the same weights gives for each bin


@dataclass(frozen=True, slots=True)
class LayerScan:
    name: str  # of the tensor, attacker-controlled text; or ALL_WEIGHTS
    grid: str  # "NF4", "FP4", "INT8", "Q4_K", "Q6_K", "groups of 32" to 128, or those ", float zero"
    weights: int  # that were tested
    share: float  # of the weights in excess of the expectation at the position below, 0..1
    distance: float  # of that excess from the nearest boundary, as a share of the cell, 0..0.5
    p_value: float  # corrected over all layers and grids, 0..1
    suspicious: bool  # it is a finding
    histogram: PositionHistogram | None = None  # kept for the worst layers only
