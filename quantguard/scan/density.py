"""The density that honest weights have on a fine axis: a smooth curve, too stiff to follow the cells of a grid.

Kernel file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.interpolate import BSpline
from torch import Tensor

from quantguard.scan.histogram import HALF

Array = npt.NDArray[np.float64]

REACH: Final = 0.98  # of the absmax: beyond lie the weights that decide a scale
# Of the log-density, in units of the absmax. Wider apart than a cell beyond 0.1, so that the curve cannot follow the
# cells; closer at zero, where weights of heavy-tailed tensors crowd.
_KNOTS: Final = (0.0, 0.004, 0.015, 0.04, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
_GROUPS: Final = 160  # of fine bins to either side of zero, over which the density is fitted
_ROUNDS: Final = 60  # of Newton's method; ten are usual
_ROUGHNESS: Final = 1e-3  # charged for a unit of third difference between coefficients, per weight
_LARGEST: Final = 40.0  # of a log-rate


def spline_basis(u: Tensor) -> Tensor:
    """Cubic B-splines at each u in [-1, 1]: float64, (points, functions)."""
    inner = [-knot for knot in reversed(_KNOTS[1:])] + list(_KNOTS)
    knots = [inner[0]] * 3 + inner + [inner[-1]] * 3
    dense = BSpline.design_matrix(u.clamp(-1 + 1e-9, 1 - 1e-9).numpy(), knots, 3).toarray()
    return torch.from_numpy(dense)


@dataclass(frozen=True, slots=True)
class _Fit:
    edges: Tensor  # fine bins at which groups begin and end, int64, (groups + 1,)
    fine: Tensor  # fine bins in each group, float64, (groups,)
    basis: Tensor  # float64, (groups, functions)


@cache
def _fit() -> _Fit:
    """Groups that grow with the distance from zero, on both sides of the bin of exact zeros."""
    outwards = torch.unique(torch.logspace(0, math.log10(REACH * HALF), _GROUPS, dtype=torch.float64).long())
    edges = torch.unique(torch.cat([HALF + 1 - outwards, HALF + outwards]))
    middle = (edges[1:] + edges[:-1]).double() / 2 / HALF - 1
    return _Fit(edges, (edges[1:] - edges[:-1]).double(), spline_basis(middle))


def running_sum(counts: Tensor) -> Tensor:
    """Running sum of the counts of an axis, (FINE + 1,), from zero on: float64, (FINE + 2,).

    Exact zeros, pruned or not, are no part of a density: their bin is given what the ones beside it hold.
    """
    smooth = counts.double()
    smooth = smooth.clone() if smooth is counts else smooth
    smooth[HALF] = (smooth[HALF - 1] + smooth[HALF + 1]) / 2
    return torch.nn.functional.pad(smooth.cumsum(0), (1, 0))


def fit_density(running: Tensor) -> Tensor:
    """Coefficients on `spline_basis` of the log-density, per fine bin, of an axis, from its `running_sum`.

    A log-spline density (Kooperberg and Stone, Computational Statistics & Data Analysis 12, 1991).
    """
    fit = _fit()
    counts = running[fit.edges[1:]] - running[fit.edges[:-1]]
    # A spline is near its coefficients: the mean log-rate where each function lives is a good one to begin with.
    start = (fit.basis.T @ ((counts + 0.5) / fit.fine).log()) / fit.basis.sum(0)
    return poisson_regression(counts, fit.basis, fit.fine, start)


def poisson_regression(counts: Tensor, basis: Tensor, exposure: Tensor, start: Tensor) -> Tensor:
    """Coefficients of the log-rate on `basis`, (n, functions), that fit `counts`, (n,), best: float64, (functions,).

    `start` is a guess at them.

    Newton's method with halved steps (iteratively reweighted least squares; McCullagh and Nelder, Generalized Linear
    Models). A little roughness is charged for, so that a stretch without weights is bridged and lumps are not followed.
    """
    y, design, offset = counts.numpy(), basis.numpy(), exposure.log().numpy()  # small arrays: numpy is twice as fast
    functions = design.shape[1]
    bend = np.diff(np.eye(functions), n=min(3, functions - 1), axis=0)
    penalty = (1e-2 + _ROUGHNESS * y.sum()) * bend.T @ bend + 1e-9 * np.eye(functions)

    def state(coefficients: Array) -> tuple[Array, float]:
        """Mean counts, and the penalised log-likelihood."""
        eta = np.minimum(design @ coefficients + offset, _LARGEST)
        mean = np.exp(eta)
        return mean, float(y @ eta - mean.sum() - coefficients @ penalty @ coefficients / 2)

    coefficients = start.numpy()
    mean, best = state(coefficients)
    for _ in range(_ROUNDS):
        slope = design.T @ (y - mean) - penalty @ coefficients
        step = np.linalg.solve((design * mean[:, None]).T @ design + penalty, slope)
        length = 1.0
        ahead, now = state(coefficients + step)
        while now < best and length > 1e-10:
            length /= 2
            ahead, now = state(coefficients + length * step)
        if now < best:
            break
        coefficients, mean = coefficients + length * step, ahead
        if now - best < 1e-6 * abs(best) / len(y) + 1e-4:
            break
        best = now
    return torch.from_numpy(coefficients)
