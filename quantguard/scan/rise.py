"""Does the density of the weights rise anywhere between a rounding boundary and the middle of the cell?

Honest weights know nothing of the boundaries: over the positions in the cell their density is that of a smooth curve.
Training with the quantizer in the loop crowds weights about the boundaries, so that it falls on the way inwards. An
attacker's weights are kept at a margin from the boundary: next to nothing lies nearer, and much at it. That is a rise,
sharp where the margin is fixed and slow where it is spread, and no honest training makes one.

The statistic compares two neighbouring windows, the outer one nearer to the boundary, at every place and many widths:
how many more weights lie in the inner one than the outer one and the smooth density foretell. Kernel file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor

_WIDTHS: Final = (1, 2, 4, 8, 16, 32, 64, 128)  # positions of a half-cell of 256
_FURTHEST: Final = 0.46  # of the cell: nearer to the middle lie the levels of honest quantized models
_DROPPED: Final = 8  # one in so many half-cells, those with most, may not carry a rise alone
_LEAST: Final = 0.002  # of the weights: smaller excesses are not looked for


@dataclass(frozen=True, slots=True)
class Rise:
    """The rise that chance explains least."""

    z: float  # signed root of the likelihood ratio: standard deviations
    share: float  # of the weights, in excess in the inner window, 0..1
    ratio: float  # density of the inner window over that of the outer one, both relative to the expectation
    begin: float  # of the inner window, share of the cell from the boundary, 0..0.5
    end: float
    depleted: float  # density of the outer window relative to the expectation, 0 where it is empty
    trimmed: float  # z without the eighth of the half-cells that carries most of it
    tests: int  # windows tried


NOTHING: Final = Rise(0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1)


@cache
def _windows(positions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Begin of the outer window, begin and end of the inner one: int64, (windows,)."""
    scale = 256 // positions
    last = int(2 * positions * _FURTHEST)
    found: list[tuple[int, int, int]] = []
    widths = sorted({max(1, width // scale) for width in _WIDTHS})
    for inner in widths:
        for outer in widths:
            if inner / 4 <= outer <= 8 * inner:
                found += [(max(0, a - outer), a, a + inner) for a in range(1, last - inner + 1)]
    begin, middle, end = torch.tensor(found).T.contiguous()
    return begin, middle, end


def find_rise(observed: Tensor, expected: Tensor, *, widest: int | None = None) -> Rise:
    """The most significant rise in weights laid over one another by half-cell: two float64, (halves, positions).

    `widest` leaves out windows of more positions.
    """
    total = float(observed.sum())
    if not total:
        return NOTHING
    expected = expected * (total / expected.sum())
    positions = observed.shape[1]
    begin, middle, end = _windows(positions)
    if widest is not None:
        narrow = (end - middle) <= widest
        begin, middle, end = begin[narrow], middle[narrow], end[narrow]
    running_o, running_e = _running(observed.sum(0)), _running(expected.sum(0))
    outer_o, outer_e = running_o[middle] - running_o[begin], running_e[middle] - running_e[begin]
    inner_o, inner_e = running_o[end] - running_o[middle], running_e[end] - running_e[middle]
    z = signed_root(outer_o, outer_e, inner_o, inner_e)
    share = (inner_o - inner_e * outer_o / outer_e.clamp(min=1e-9)) / total
    best = int(torch.where(share > _LEAST, z, -1.0).argmax())
    if not share[best] > _LEAST:
        return NOTHING
    inner, outer = slice(int(middle[best]), int(end[best])), slice(int(begin[best]), int(middle[best]))
    before = float(outer_o[best] / outer_e[best])
    return Rise(
        z=float(z[best]),
        share=float(share[best]),
        ratio=float((inner_o[best] + 1) / inner_e[best] / ((outer_o[best] + 1) / outer_e[best])),
        begin=inner.start / positions / 2,
        end=inner.stop / positions / 2,
        depleted=before,
        trimmed=_trimmed(observed, expected, outer, inner),
        tests=int(z.numel()),
    )


def signed_root(outer_o: Tensor, outer_e: Tensor, inner_o: Tensor, inner_e: Tensor) -> Tensor:
    """Signed root of twice the log-likelihood ratio that two Poisson counts have one factor over their expectations."""
    n = inner_o + outer_o
    chance = inner_e / (inner_e + outer_e).clamp(min=1e-12)
    gain = torch.xlogy(inner_o, inner_o / (n * chance).clamp(min=1e-12))
    gain = gain + torch.xlogy(outer_o, outer_o / (n * (1 - chance)).clamp(min=1e-12))
    root = (2 * gain).clamp(min=0).sqrt()
    return torch.where(inner_o * outer_e > outer_o * inner_e, root, -root)


def _running(values: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=values.dtype), values.cumsum(0)])


def _trimmed(observed: Tensor, expected: Tensor, outer: slice, inner: slice) -> float:
    """z without the half-cells whose excess is largest: a trace of the grid is in all of them, an accident in a few."""
    counts = [part.sum(1) for part in (observed[:, outer], expected[:, outer], observed[:, inner], expected[:, inner])]
    outer_o, outer_e, inner_o, inner_e = counts
    level = outer_o.sum() / outer_e.sum().clamp(min=1e-9)
    excess = inner_o - inner_e * level
    keep = excess.argsort(descending=True)[max(1, len(excess) // _DROPPED) :]
    sums = [count[keep].sum() for count in counts]
    return float(signed_root(*sums))
