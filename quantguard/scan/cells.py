"""Where the cells of a grid lie on the fine axes, and how a smooth density would fill them.

A *half-cell* is what lies between a rounding boundary and the level beside it; a *position* is how far from the one to
the other a weight is, 0 at the boundary and 0.5 on the level. An attacker who keeps
codes while he moves weights leaves the same trace in every half-cell, and so they are laid over one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor

from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.scan.density import REACH, spline_basis
from quantguard.scan.histogram import FINE, HALF, LEVEL

_POSITIONS: Final = 256  # in half a cell of NF4 and FP4
_NARROW: Final = 0.01  # of the absmax: FP4's cell of zero is narrower, and too narrow for positions
_ON: Final = 0.02
# Distance of neighbouring stored values over their magnitude, at most, by the zero bits of a float32 (`Lattice`).
_SPACING: Final = {0: 0.0, 13: 2.0**-10, 16: 2.0**-7}
_STRETCH: Final = 0.0005  # of the absmax: a density is taken as flat over less
_RESOLVED: Final = 0.25  # of the cell: where stored values lie further apart, positions say nothing


@dataclass(frozen=True, slots=True)
class Axis:
    """A fine axis and the cells on it, all in units of the absmax: [-1, 1]."""

    grid: str  # as reports call it
    counts: str  # name of the counts that it is cut out of
    edges: Tensor  # boundaries of all cells, the outermost levels first and last, ascending, float64
    levels: Tensor  # one in each cell, float64
    positions: int  # in half a cell


def axis_of(scheme: Scheme) -> Axis:
    """The axis of one of bitsandbytes' grids."""
    grid = grid_for(scheme)
    is_row = scheme is Scheme.INT8
    top = HALF / LEVEL if is_row else 1.0  # steps of INT8 on half the axis, which is a little more than 127
    levels = grid.levels.double() / top
    edges = torch.cat([levels[:1], grid.boundaries.double() / top, levels[-1:]])
    return Axis(scheme.value.upper(), "row" if is_row else "block", edges, levels, LEVEL // 2 if is_row else _POSITIONS)


@dataclass(frozen=True, slots=True)
class Cells:
    """The half-cells of one grid. Tensors are float64, (halves, positions), unless said otherwise."""

    axis: Axis
    halves: int
    low: Tensor  # first fine bin of each slot, int64
    high: Tensor  # the one after its last
    sides: Tensor  # 1 for the half-cells that are the lower, and the upper, one of their cell, else 0; (2, halves)
    fine: Tensor  # fine bins in each slot
    basis: Tensor  # of the log-density at the middle of each stretch of positions, (halves, stretches, functions)
    on: Tensor  # 1 for a fine bin within 2 % of a cell of a level, as far as that is resolved, else 0; (FINE + 1,)
    resolved: Tensor  # 1 where that can be told, (FINE + 1,)

    def observed(self, running: Tensor) -> Tensor:
        """Weights in each slot from the running sum of those in each fine bin (`running_sum`)."""
        return running[self.high] - running[self.low]

    def expected(self, coefficients: Tensor) -> Tensor:
        """Weights in each slot where the log-density of `fit_density` holds."""
        rate = torch.exp(self.basis @ coefficients)
        return rate.repeat_interleave(self.axis.positions // rate.shape[1], dim=1) * self.fine

    def on_level(self, counts: Tensor) -> float:
        """Share of the weights that lie on a level, 0..1."""
        counts = counts.double()
        told = float(counts @ self.resolved)
        return float(counts @ self.on) / told if told else 0.0


@cache
def cells_of(scheme: Scheme, bits: int = 0) -> Cells:
    """The cells of `scheme` for values whose float32 has the last `bits` bits zero (`Lattice`)."""
    return cut(axis_of(scheme), bits)


def cut(axis: Axis, bits: int) -> Cells:
    """Cut an axis into half-cells, without zero, what decides a scale, and cells finer than the stored values."""
    u = (torch.arange(FINE, dtype=torch.float64) + 0.5) / HALF - 1
    cell = (torch.bucketize(u, axis.edges, right=True) - 1).clamp(0, axis.edges.numel() - 2)
    width = axis.edges[cell + 1] - axis.edges[cell]
    level = axis.levels[cell]
    upper = u > level
    # A level is not quite in the middle of its cell. The outermost ones lie at its end: nothing is beyond them.
    length = torch.where(upper, axis.edges[cell + 1] - level, level - axis.edges[cell])
    away = torch.where(upper, axis.edges[cell + 1] - u, u - axis.edges[cell]) / length.clamp(min=1e-12) / 2
    spacing = _SPACING[bits] * u.abs()
    inside = (u.abs() < REACH) & (spacing <= _RESOLVED * width)
    outside = ((cell == 0) & ~upper) | ((cell == axis.edges.numel() - 2) & upper)
    used = (inside & ~outside & (length > min(_NARROW, float(width.max()) / 2) / 2)).nonzero().view(-1)
    position = (away * 2 * axis.positions).long().clamp(0, axis.positions - 1)
    halves, half = torch.unique((2 * cell + upper.long())[used], return_inverse=True)
    slot = half * axis.positions + position[used]
    shape = (halves.numel(), axis.positions)

    def summed(values: Tensor) -> Tensor:
        return torch.bincount(slot, weights=values[used].double(), minlength=shape[0] * shape[1]).view(shape)

    fine = summed(torch.ones(FINE))
    off = (u - level).abs()
    tolerance = _ON * width + spacing
    told = inside & (tolerance <= 0.15 * width)
    told[HALF] = False  # exact zeros are counted there
    first = torch.full((fine.numel(),), FINE, dtype=torch.int64).scatter_reduce(0, slot, used, "amin").view(shape)
    return Cells(
        axis=axis,
        halves=shape[0],
        low=torch.where(fine > 0, first, 0),
        high=torch.where(fine > 0, first + fine.long(), 0),
        sides=torch.stack([halves % 2 == 0, halves % 2 == 1]).double(),
        fine=fine,
        basis=_basis(summed(u), fine),
        on=_padded(told & (off < tolerance)),
        resolved=_padded(told),
    )


def _padded(mask: Tensor) -> Tensor:
    """0 and 1, float64, with a 0 for the bin of what is out of range."""
    return torch.nn.functional.pad(mask.double(), (0, 1))


def _basis(sums: Tensor, fine: Tensor) -> Tensor:
    """Splines at the mean u of some positions each, from the sums of u over each slot and its fine bins."""
    halves, positions = fine.shape
    together = positions
    while together > 1 and float(fine.sum(1).max()) / HALF * together / positions > _STRETCH:
        together //= 2
    fine, sums = (values.view(halves, -1, together).sum(2) for values in (fine, sums))
    return spline_basis((sums / fine.clamp(min=1)).view(-1)).view(*fine.shape, -1)
