"""Gaussian noise of about half a cell before rounding: data-free, and random where an attacker was exact.

Source: "Interval-Calibrated Noisy Quantization" (FARS, 2026, analemma.ai, run FA0112): sigma is the median half-width
of the cells of a layer's weights. Here, besides, weights that decide a scale keep their value, and none outgrows them.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from quantguard.core.progress import Progress
from quantguard.grids.grid import Grid
from quantguard.harden.turns import Choice, Problem, Solution


def noise(problem: Problem, progress: Progress) -> Solution:
    """The stock rounding of every free weight after noise; the same for the same seed, scheme and tensor name."""
    scheme, choices = problem.grid.scheme, {}
    for done, (name, weight) in enumerate(problem.weights.items(), 1):
        drawn = torch.randn(weight.shape, generator=_generator(f"{problem.seed} {scheme.value} {name}"))
        near = noised(problem.grid, weight, problem.frozen[name], drawn.to(weight.device))
        choices[name] = Choice(problem.grid.nearest(near), near)
        progress(f"harden {scheme.value}", done, len(problem.weights))
    return Solution(choices)


def noised(grid: Grid, weight: Tensor, frozen: Tensor, drawn: Tensor) -> Tensor:
    """`weight` + sigma `drawn`, no further than the maximum of its block or row: float32, the shape of `weight`.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, finite.
        frozen: bool, the shape of `weight`; True keeps the value, as it is kept where the grid pins it.
        drawn: float32, the shape of `weight`, standard normal.
    """
    limit = grid.magnitude_limit(weight)
    moved = (weight.float() + median_half_width(grid, weight) * drawn).clamp(-limit, limit)
    return torch.where(frozen | grid.pinned(weight), weight.float(), moved)


def median_half_width(grid: Grid, weight: Tensor) -> Tensor:
    """Median over all weights of half the width of their own cell, in the weight's own units: float32, scalar, >= 0."""
    lower, upper = grid.cell(grid.nearest(weight))
    return ((upper - lower) * grid.unit(weight)).median() / 2


def _generator(key: str) -> torch.Generator:
    """On the CPU, so that every device draws the same; one for each tensor and scheme, so that none repeats another."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
