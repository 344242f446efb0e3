"""Is the density of the weights, somewhere between a rounding boundary and the level, what no honest training makes?

Honest weights know nothing of the boundaries: over the positions in the cell their density is that of a smooth curve.
Training with the quantizer in the loop crowds weights about the boundaries, so that it falls on the way inwards;
changing a dequantized model a little leaves it highest on the levels, so that it rises all the way. An attacker's
weights are kept at a margin: next to nothing lies nearer to the boundary, and much at it. That is a *peak* between the
two, sharp where the margin is fixed and wide where it is spread, or a *cusp*, an empty strip along the boundary itself.

The statistic compares neighbouring windows at every place and many widths: how many more weights lie in one than the
one before it, nearer to the boundary, and the smooth density foretell; for a peak, also than the one behind it
foretells. Kernel file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special
from torch import Tensor

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Counted = Array | np.float64 | float

_WIDTHS: Final = (1, 2, 4, 8, 16, 32, 64, 128)  # positions of a half-cell of 256
_FURTHEST: Final = 0.46  # of the cell: nearer to the level lie the weights of honest quantized models
_STRIP: Final = 0.08  # of the cell: a cusp is seen this near to the boundary
_STEEP: Final = 1.4  # times the density, over a cusp and in a half-cell that carries a peak
_ABOUT: Final = 2  # times nearer to the boundary and further from it: what of a half-cell belongs to a window
_DROPPED: Final = 8  # one in so many half-cells, those with most, may not carry a rise alone
_LEAST: Final = 0.002  # of the weights: smaller excesses are not looked for


@dataclass(frozen=True, slots=True)
class Rise:
    """The peak or cusp that chance explains least."""

    z: float  # signed root of the likelihood ratio: standard deviations
    share: float  # of the weights, in excess in the window, 0..1
    ratio: float  # density of the window over that of the one nearer to the boundary, relative to the expectation
    begin: float  # of the window, share of the cell from the boundary, 0..0.5
    end: float
    depleted: float  # density of the window nearer to the boundary relative to the expectation, 0 where it is empty
    trimmed: float  # z without the eighth of the half-cells that carries most of it
    tests: int  # windows tried
    carried: float = 0.0  # share of the weights whose half-cell shows it by itself, 0..1


NOTHING: Final = Rise(0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1)


@dataclass(frozen=True, slots=True)
class _Windows:
    """Every place and width: positions in the half-cell, (windows,) each."""

    before: Places  # begin of the window nearer to the boundary
    begin: Places
    end: Places
    behind: Places  # end of the window behind it
    cusp: npt.NDArray[np.bool_]  # the window before it begins at the boundary, and both are near it


@cache
def _windows(positions: int) -> _Windows:
    scale = 256 // positions
    last = int(2 * positions * _FURTHEST)
    found: list[tuple[int, int, int, int]] = []
    widths = sorted({max(1, width // scale) for width in _WIDTHS})
    for inner in widths:
        for outer in widths:
            if outer in (inner, 4 * inner):
                places = range(1, last - inner + 1)
                found += [(max(0, a - outer), a, a + inner, min(a + 2 * inner, positions)) for a in places]
    before, begin, end, behind = np.array(found).T.copy()
    return _Windows(before, begin, end, behind, (before == 0) & (end <= 2 * positions * _STRIP))


def find_rise(observed: Tensor, expected: Tensor, *, widest: int | None = None, until: int | None = None) -> Rise:
    """The most significant peak or cusp in weights laid over one another: two float64, (halves, positions).

    `widest` leaves out windows of more positions; nothing is looked at from position `until` on.
    """
    total = float(observed.sum())
    if not total:
        return NOTHING
    positions = observed.shape[1]
    w = _windows(positions)
    o, e = _running(observed), _running(expected)
    e *= total / e[-1]
    inner_o, inner_e = o[w.end] - o[w.begin], e[w.end] - e[w.begin]
    outer_o, outer_e = o[w.begin] - o[w.before], e[w.begin] - e[w.before]
    stop = positions if until is None else until
    behind = np.clip(w.behind, w.end, np.maximum(w.end, stop))
    behind_o, behind_e = o[behind] - o[w.end], e[behind] - e[w.end]
    level, level_behind = outer_o / np.maximum(outer_e, 1e-9), behind_o / np.maximum(behind_e, 1e-9)
    z = signed_root(outer_o, outer_e, inner_o, inner_e)
    steep = w.cusp & (inner_o > _STEEP * level * inner_e)
    share = (inner_o - inner_e * np.where(steep, level, np.maximum(level, level_behind))) / total
    eligible = (share > _LEAST) & (w.end <= stop)
    if widest is not None:
        eligible &= w.end - w.begin <= widest
    if not eligible.any():
        return NOTHING
    peak = np.minimum(z, signed_root(behind_o, behind_e, inner_o, inner_e))
    z = np.where(eligible, np.where(steep, z, peak), -1.0)
    best = int(z.argmax())
    begin, end = int(w.begin[best]), int(w.end[best])
    return Rise(
        z=float(z[best]),
        share=float(share[best]),
        ratio=float((inner_o[best] + 1) / max(inner_e[best], 1e-9) / ((outer_o[best] + 1) / max(outer_e[best], 1e-9))),
        begin=begin / positions / 2,
        end=end / positions / 2,
        depleted=float(level[best]),
        trimmed=trimmed(observed, expected, slice(int(w.before[best]), begin), slice(begin, end)),
        tests=len(z),
        carried=_carried(observed, expected, begin, end),
    )


def _carried(observed: Tensor, expected: Tensor, begin: int, end: int) -> float:
    """Share of the weights in half-cells that are dense about a window, each beside its own whole.

    A margin is a share of the cell, and a level need not be in its middle: from twice as near to twice as far, it is in
    the window of every half-cell.
    """
    o, e = observed.numpy(), expected.numpy()
    about = slice(begin // _ABOUT, min(_ABOUT * end, o.shape[1]))
    all_o, all_e = o.sum(axis=1), e.sum(axis=1)
    dense = o[:, about].sum(axis=1) * all_e > _STEEP * e[:, about].sum(axis=1) * all_o
    return float(all_o[dense].sum() / max(all_o.sum(), 1.0))


def trimmed(observed: Tensor, expected: Tensor, outer: slice, inner: slice) -> float:
    """z without the half-cells whose excess is largest: a trace of the grid is in all of them, an accident in a few."""
    o, e = observed.numpy(), expected.numpy()
    outer_o, outer_e, inner_o, inner_e = (
        part.sum(axis=1) for part in (o[:, outer], e[:, outer], o[:, inner], e[:, inner])
    )
    excess = inner_o - inner_e * (outer_o.sum() / max(outer_e.sum(), 1e-9))
    keep = np.argsort(-excess)[max(1, len(excess) // _DROPPED) :]
    sums = [count[keep].sum() for count in (outer_o, outer_e, inner_o, inner_e)]
    return float(signed_root(*sums))


def signed_root(outer_o: Counted, outer_e: Counted, inner_o: Counted, inner_e: Counted) -> Array:
    """Signed root of twice the log-likelihood ratio that two Poisson counts have one factor over their expectations."""
    n = inner_o + outer_o
    chance = inner_e / np.maximum(inner_e + outer_e, 1e-12)
    gain = special.xlogy(inner_o, inner_o / np.maximum(n * chance, 1e-12))
    gain = gain + special.xlogy(outer_o, outer_o / np.maximum(n * (1 - chance), 1e-12))
    root = np.sqrt(np.maximum(2 * gain, 0.0))
    signed: Array = np.where(inner_o * outer_e > outer_o * inner_e, root, -root)
    return signed


def _running(laid: Tensor) -> Array:
    return np.concatenate([[0.0], laid.numpy().sum(axis=0).cumsum()])
