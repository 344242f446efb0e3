"""Where the cells of a grid lie on the fine axes, and how a smooth density would fill them.

A *half-cell* is what lies between a rounding boundary and the middle of the cell beside it; a *position* is the
distance from that boundary as a share of the cell, 0 at the boundary and 0.5 in the middle. An attacker who keeps
codes while he moves weights leaves the same trace in every half-cell, and so they are laid over one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from scipy.interpolate import BSpline
from torch import Tensor

from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.scan.histogram import FINE, HALF, LEVEL

REACH: Final = 0.98  # of the absmax: beyond lie the weights that decide a scale
_POSITIONS: Final = 256  # in half a cell of NF4 and FP4
_NARROW: Final = 0.01  # of the absmax: FP4's cell of zero is narrower, and too narrow for positions
_NEAR: Final = 0.1  # of the cell to either side of its level
_ON: Final = 0.02
_LEVEL: Final = 0.003
# Distance of neighbouring stored values over their magnitude, at most, by the zero bits of a float32 (`Lattice`).
_SPACING: Final = {0: 0.0, 13: 2.0**-10, 16: 2.0**-7}
_RESOLVED: Final = 0.25  # of the cell: where stored values lie further apart, positions say nothing
# Of the log-density, in units of the absmax. Wider apart than a cell beyond 0.1, so that the curve cannot follow the
# cells; closer at zero, where weights of heavy-tailed tensors crowd.
_KNOTS: Final = (0.0, 0.004, 0.015, 0.04, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
_GROUPS: Final = 160  # of fine bins to either side of zero, over which the density is fitted


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
    used: Tensor  # fine bins that lie in a half-cell, int64, (used,)
    slot: Tensor  # half-cell x positions + position of each of those, int64, (used,)
    upper: Tensor  # whether a half-cell is the upper one of its cell, bool, (halves,)
    fine: Tensor  # fine bins in each slot
    basis: Tensor  # of the log-density at the middle of each slot, (halves, positions, functions)
    near: Tensor  # bool: within a tenth of a cell of the cell's level
    level: Tensor  # bool: that level's own slots
    on: Tensor  # bool, (FINE + 1,): within 2 % of a cell of a level, as far as the stored values resolve it
    resolved: Tensor  # bool, (FINE + 1,): where that can be told

    def observed(self, counts: Tensor) -> Tensor:
        """Weights in each slot from those in each fine bin, (FINE + 1,)."""
        laid = torch.bincount(self.slot, weights=counts[self.used].double(), minlength=self.fine.numel())
        return laid.view(self.fine.shape)

    def expected(self, coefficients: Tensor) -> Tensor:
        """Weights in each slot where the log-density of `fit_density` holds."""
        return torch.exp(self.basis @ coefficients) * self.fine

    def on_level(self, counts: Tensor) -> float:
        """Share of the weights that lie on a level, 0..1."""
        told = float(counts[self.resolved].sum())
        return float(counts[self.on].sum()) / told if told else 0.0


@cache
def cells_of(scheme: Scheme, bits: int = 0) -> Cells:
    """The cells of `scheme` for values whose float32 has the last `bits` bits zero (`Lattice`)."""
    return cut(axis_of(scheme), bits)


def cut(axis: Axis, bits: int) -> Cells:
    """Cut an axis into half-cells, without zero, what decides a scale, and cells finer than the stored values."""
    u = (torch.arange(FINE, dtype=torch.float64) + 0.5) / HALF - 1
    cell = (torch.bucketize(u, axis.edges, right=True) - 1).clamp(0, axis.edges.numel() - 2)
    width = axis.edges[cell + 1] - axis.edges[cell]
    along = (u - axis.edges[cell]) / width
    upper = along > 0.5
    spacing = _SPACING[bits] * u.abs()
    inside = (u.abs() < REACH) & (spacing <= _RESOLVED * width)
    inside[HALF] = False  # exact zeros are counted there
    outside = ((cell == 0) & ~upper) | ((cell == axis.edges.numel() - 2) & upper)
    used = (inside & ~outside & (width > min(_NARROW, float(width.max()) / 2))).nonzero().view(-1)
    position = (torch.where(upper, 1 - along, along) * 2 * axis.positions).long().clamp(0, axis.positions - 1)
    halves, half = torch.unique((2 * cell + upper.long())[used], return_inverse=True)
    slot = half * axis.positions + position[used]
    shape = (halves.numel(), axis.positions)

    def summed(values: Tensor) -> Tensor:
        return torch.bincount(slot, weights=values[used].double(), minlength=shape[0] * shape[1]).view(shape)

    fine = summed(torch.ones(FINE))
    off = (u - axis.levels[cell]).abs()
    on = torch.zeros(FINE + 1, dtype=torch.bool)
    resolved = on.clone()
    tolerance = _ON * width + spacing
    resolved[:FINE] = inside & (tolerance <= 0.15 * width)
    on[:FINE] = resolved[:FINE] & (off < tolerance)
    return Cells(
        axis=axis,
        halves=shape[0],
        used=used,
        slot=slot,
        upper=halves % 2 == 1,
        fine=fine,
        basis=_basis((summed(u) / fine.clamp(min=1)).view(-1)).view(*shape, -1),
        near=summed((off < _NEAR * width).double()) > fine / 2,
        level=summed((off < (_LEVEL * width).clamp(min=1.5 / HALF)).double()) > 0,
        on=on,
        resolved=resolved,
    )


def _basis(u: Tensor) -> Tensor:
    """Cubic B-splines at each u in [-1, 1]: float64, (points, functions)."""
    inner = [-knot for knot in reversed(_KNOTS[1:])] + list(_KNOTS)
    knots = [inner[0]] * 3 + inner + [inner[-1]] * 3
    dense = BSpline.design_matrix(u.clamp(-1 + 1e-9, 1 - 1e-9).numpy(), knots, 3).toarray()
    return torch.from_numpy(dense)


@dataclass(frozen=True, slots=True)
class _Fit:
    edges: Tensor  # fine bins at which groups begin and end, int64, (groups + 1,)
    fine: Tensor  # fine bins in each group, float64, (groups,)
    basis: Tensor  # (groups, functions)


@cache
def _fit() -> _Fit:
    # Groups grow with the distance from zero. The bin of exact zeros is one of its own, and left out by its weight.
    reach = int(REACH * HALF)
    outwards = torch.logspace(0, torch.tensor(float(reach)).log10().item(), _GROUPS, dtype=torch.float64).long()
    outwards = torch.unique(outwards)
    edges = torch.cat([HALF - outwards.flip(0) + 1, torch.tensor([HALF]), HALF + outwards])
    edges = torch.unique(edges)
    fine = (edges[1:] - edges[:-1]).double()
    middle = (edges[1:] + edges[:-1]).double() / 2 / HALF - 1
    return _Fit(edges, fine, _basis(middle))


def fit_density(counts: Tensor) -> Tensor:
    """Coefficients of the smooth log-density, per fine bin, that fits the counts of an axis best: float64.

    Poisson regression on B-splines (log-spline density, Kooperberg and Stone, 1991) by iteratively reweighted least
    squares; a little roughness is charged for, so that a stretch without weights is bridged.
    """
    fit = _fit()
    counts = counts.double().clone()
    counts[HALF] = (counts[HALF - 1] + counts[HALF + 1]) / 2  # exact zeros, pruned or not
    running = torch.cat([torch.zeros(1, dtype=torch.float64), counts.cumsum(0)])
    y = running[fit.edges[1:]] - running[fit.edges[:-1]]  # (groups,)
    functions = fit.basis.shape[1]
    bend = torch.diff(torch.eye(functions, dtype=torch.float64), n=2, dim=0)
    ridge = 1e-2 * bend.T @ bend + 1e-9 * torch.eye(functions, dtype=torch.float64)
    offset = fit.fine.log()
    eta = (y + 0.5).log()
    coefficients = torch.zeros(functions, dtype=torch.float64)
    for _ in range(25):
        mean = eta.exp()
        target = eta - offset + (y - mean) / mean
        weighted = fit.basis * mean[:, None]
        updated = torch.linalg.solve(weighted.T @ fit.basis + ridge, weighted.T @ target)
        done = bool((updated - coefficients).abs().max() < 1e-5)
        coefficients = updated
        eta = (fit.basis @ coefficients + offset).clamp(-20, 40)
        if done:
            break
    return coefficients
