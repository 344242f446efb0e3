"""Moving weights so that stock quantization rounds them to chosen levels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from quantguard.core.scheme import Scheme
from quantguard.grids.grid import Grid

# Share of the cell's width kept between a committed weight and its boundaries: a hundred times a kernel's last-bit
# difference, and below what the scan resolves, so that it leaves no empty strip as an attacker's margin does.
_MARGIN = 0.0002


def pin(grid: Grid, weight: Tensor, chosen: Tensor) -> Tensor:
    """`chosen` with the level of every pinned weight set back to the one it has: int64, the shape of `weight`."""
    return torch.where(grid.pinned(weight), grid.nearest(weight), chosen)


def commit(
    grid: Grid, weight: Tensor, chosen: Tensor, *, near: Tensor | None = None, frozen: Tensor | None = None
) -> Tensor:
    """A weight of the same dtype that stock quantization rounds to exactly the `chosen` levels.

    Each weight goes to the value nearest to `near` (default: `weight`) that is inside the chosen cell, 0.02 % of the
    cell's width off its boundaries. Where the dtype, or INT8's cast to float16, is too coarse for that, it goes one or
    two representable values further in, or to the value nearest to the level. Weights that are there already keep their
    bits; pinned ones always do, so that no scale moves.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, finite.
        chosen: level indices, int64, the shape of `weight`; at pinned weights, the level they have (see `pin`).
        near: float values of the shape of `weight`.
        frozen: bool, the shape of `weight`; True keeps the bits of a weight besides the pinned ones (such as those that
            decide the scales of another scheme).

    Raises:
        ValueError: a pinned or frozen weight was asked to change its level, or no value of the dtype lies in a chosen
            cell (float16 denormals: the cell is narrower than the dtype's spacing).
    """
    pinned = grid.pinned(weight) if frozen is None else grid.pinned(weight) | frozen
    if bool((grid.nearest(weight) != chosen)[pinned].any()):
        raise ValueError("a weight that decides its block's scale cannot change its level")
    result = placed(grid, weight, chosen, weight if near is None else near, pinned)
    wrong = grid.nearest(result) != chosen
    if bool(wrong.any()):
        raise ValueError(f"{int(wrong.sum())} chosen cells hold no {weight.dtype} value")
    return result


def placed(grid: Grid, weight: Tensor, chosen: Tensor, near: Tensor, pinned: Tensor) -> Tensor:
    """As `commit`, but that a weight whose chosen cell holds no value that it may have is put near it.

    Args:
        weight, chosen, near: as for `commit`; what is pinned must be chosen as it is.
        pinned: bool, the shape of `weight`; True keeps the bits, those that decide a scale among them.
    """
    lower, upper = grid.cell(chosen)
    inset = _MARGIN * (upper - lower)
    unit = grid.unit(weight)
    # No weight may outgrow the maximum of its block or row: that would move the scale.
    ceiling = grid.magnitude_limit(weight).to(weight.dtype)
    clipped = torch.clamp(near.float(), (lower + inset) * unit, (upper - inset) * unit).to(weight.dtype)
    centre = grid.value(weight, chosen).to(weight.dtype)
    result = torch.where(pinned, weight, torch.clamp(clipped, -ceiling, ceiling))
    wrong, on = _missed(grid, result, chosen, pinned)
    for candidate in _further_in(grid, clipped, centre):
        if not bool((wrong | on).any()):
            return result
        tried = torch.where(wrong | on, torch.clamp(candidate, -ceiling, ceiling), result)
        still, beside = _missed(grid, tried, chosen, pinned)
        # A value on the boundary is the last resort: better than another level, and left for one that is off it.
        result = torch.where(wrong | (on & ~still & ~beside), tried, result)
        wrong, on = _missed(grid, result, chosen, pinned)
    return result


def _missed(grid: Grid, weight: Tensor, chosen: Tensor, pinned: Tensor) -> tuple[Tensor, Tensor]:
    """Where the level is not the chosen one, and where it is but on a boundary: two bools, the shape of `weight`."""
    wrong = grid.nearest(weight) != chosen
    return wrong, grid.on_boundary(weight) & ~wrong & ~pinned


def _further_in(grid: Grid, clipped: Tensor, centre: Tensor) -> Iterator[Tensor]:
    """Values to try where rounding to the dtype put a weight on the wrong side of a boundary, nearest first."""
    # INT8 decides by the float16 of a weight, so that steps of a float32 would all be the same to it.
    spacing = torch.float16 if grid.scheme is Scheme.INT8 and clipped.dtype is torch.float32 else clipped.dtype
    inwards = centre.to(spacing)
    once = torch.nextafter(clipped.to(spacing), inwards)
    twice = torch.nextafter(once, inwards)
    up = torch.nextafter(inwards, torch.full_like(inwards, float("inf")))
    down = torch.nextafter(inwards, torch.full_like(inwards, -float("inf")))
    yield from (values.to(clipped.dtype) for values in (once, twice, centre, up, down))
