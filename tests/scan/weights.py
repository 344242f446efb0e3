"""Weights whose history is known, and what the scan measures on them."""

from __future__ import annotations

import torch
from torch import Tensor

from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.scan.cells import cells_of
from quantguard.scan.density import fit_density, running_sum
from quantguard.scan.examine import Examined, examine_laid
from quantguard.scan.histogram import Counts, count, dither_noise, lattice_of

MARGIN = {Scheme.NF4: 0.01, Scheme.FP4: 0.01, Scheme.INT8: 0.1}  # of the published attack
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def honest(seed: int, dtype: torch.dtype = torch.float32, size: tuple[int, int] = (256, 384)) -> Tensor:
    """A Gaussian weight, as training leaves it."""
    return (torch.randn(size, generator=generator(seed)) * 0.04).to(dtype)


def heavy_tailed(seed: int, size: tuple[int, int] = (256, 384)) -> Tensor:
    """The signed squares of a Gaussian weight: a cusp at zero, kurtosis 12."""
    x = torch.randn(size, generator=generator(seed))
    return x.sign() * x.square() * 0.02


def laplacian(seed: int, size: tuple[int, int] = (256, 384)) -> Tensor:
    x = torch.rand(size, generator=generator(seed)) - 0.5
    return -0.03 * x.sign() * torch.log1p(-2 * x.abs())


def prepared(
    weight: Tensor, scheme: Scheme, share: float, *, margin: float | None = None, spread: float = 0.0
) -> Tensor:
    """`share` of the weights set to the edges of the interval that keeps their code, as the attack leaves them.

    With `spread`, each weight draws its own margin from [margin, margin + spread], and those that keep it already stay.
    """
    drawn = generator(99)
    grid = grid_for(scheme)
    least = MARGIN[scheme] if margin is None else margin
    own = least + spread * torch.rand(weight.shape, generator=drawn)
    low, high = grid.interval(weight, own)
    edge = torch.where(torch.rand(weight.shape, generator=drawn) < 0.5, low, high)
    if spread:
        lower, upper = grid.cell(grid.nearest(weight))
        width = upper - lower
        kept = (grid.normalise(weight).clamp(lower + own * width, upper - own * width)) * grid.unit(weight)
        edge = torch.where(grid.pinned(weight), weight.float(), kept)
    taken = torch.rand(weight.shape, generator=drawn) < share
    return torch.where(taken, edge, weight.float()).to(weight.dtype)


def dequantized(weight: Tensor, scheme: Scheme) -> Tensor:
    """What the library gives back for the nearest levels, in the dtype of `weight`."""
    grid = grid_for(scheme)
    return grid.dequantize(grid.nearest(weight), grid.scale(weight)).to(weight.dtype)


def counts_of(weight: Tensor) -> Counts:
    counts, finite = count(weight, dither_noise(lattice_of(weight)))
    assert finite
    return counts


def examined(weight: Tensor, scheme: Scheme) -> Examined:
    """One weight under one grid."""
    cells = cells_of(scheme, lattice_of(weight).bits)
    counts = getattr(counts_of(weight), cells.axis.counts)
    running = running_sum(counts)
    return examine_laid(cells.observed(running), cells.expected(fit_density(running)), cells, cells.on_level(counts))


def crowded(weight: Tensor, scheme: Scheme) -> Tensor:
    """Weights near a boundary pulled nearer to it, as training with the quantizer in the loop leaves them."""
    grid = grid_for(scheme)
    lower, upper = grid.cell(grid.nearest(weight))
    x = grid.normalise(weight)
    edge = torch.where(x - lower < upper - x, lower, upper)
    near = ((x - edge).abs() < 0.15 * (upper - lower)) & ~grid.pinned(weight)
    pulled = x - (x - edge) * torch.rand(weight.shape, generator=generator(98)) / 2
    return torch.where(near, pulled, x) * grid.unit(weight)


def adapted(weight: Tensor, scheme: Scheme, size: float) -> Tensor:
    """Dequantized and merged with an adapter of rank 4."""
    rows, columns = weight.shape
    left, right = torch.randn(rows, 4, generator=generator(3)), torch.randn(4, columns, generator=generator(4))
    return dequantized(weight, scheme) + size * left @ right
