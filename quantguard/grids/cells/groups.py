"""Positions in the cells of asymmetric 4-bit groups, from which GPTQ, AWQ and HQQ start.

Words. A *group* is so many consecutive inputs of one output row (32, 64 or 128) that share a scale and a zero point;
where a row is no whole number of groups, what is left at its end is a group of its own. Axis and position as in
`quantguard.grids.cells.position`.

Two conventions, in float32 whatever the weight's dtype:

INTEGER. GPTQ: low = min(weights, 0), high = max(weights, 0), scale = (high - low) / 15, zero = round(-low / scale),
    code = clamp(round(w / scale) + zero, 0, 15). The zero point is an integer, so that x = w / scale.
    Source: AutoGPTQ, auto_gptq/quantization/quantizer.py (Quantizer.find_params with perchannel, sym=False, mse=False,
    and quantize), after IST-DASLab/gptq, quant.py; a group of zeros has scale 2/15.
    AWQ is the same for every group with weights of both signs: it leaves out the 0 of low and high, clamps high - low
    at 1e-5, and clamps the zero point to 0..15. It computes in the weight's own dtype, so that its float16 codes may
    differ beside a boundary. Source: mit-han-lab/llm-awq, awq/quantize/quantizer.py (pseudo_quantize_tensor with
    zero_point=True); AutoAWQ, awq/quantize/quantizer.py, has the same.
FLOAT. HQQ: scale = min(15 / (high - low), 20000), zero = -low x scale, x = w x scale + zero, code = clamp(round(x), 0,
    15). Source: mobiusml/hqq, hqq/core/quantize.py (Quantizer.quantize with nbits=4, axis=1,
    round_zero=False, optimize=False). With round_zero its codes lie as under INTEGER.

All three only start from here: GPTQ rounds column after column and moves the columns that are still to come, of which
a group's scale is taken when its first column comes; AWQ first multiplies columns by a searched factor and may clip;
HQQ goes on to move its zero point. So positions are those of the later methods' first step, and exact for
round-to-nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

import torch
from torch import Tensor

from quantguard.grids.cells.position import Positions, position_

CODE_MAX: Final = 15  # 4 bits

_INVERSE_MAX: Final = 2e4  # HQQ's bound on codes per unit of weight
_ELEMENTS_AT_ONCE: Final = 1 << 18  # so that the float32 tensors that are alive stay in the second-level cache


class ZeroPoint(Enum):
    """What a group's zero point may be."""

    INTEGER = "integer"  # GPTQ, AWQ
    FLOAT = "float"  # HQQ


@dataclass(frozen=True, slots=True)
class Ranges:
    """Smallest and largest weight of each group."""

    size: int  # weights of a whole group
    low: Tensor
    """(rows, groups), float32; the last group of a row may be short."""
    high: Tensor
    """(rows, groups), float32."""


@dataclass(frozen=True, slots=True)
class _Groups:
    """Groups of one length, side by side in some rows."""

    columns: slice
    low: Tensor
    """(rows, groups, 1), float32."""
    high: Tensor
    """(rows, groups, 1), float32."""

    def of(self, rows: Tensor) -> Tensor:
        """A view of their part of (rows, columns): (rows, groups, weights of a group)."""
        part = rows[:, self.columns]
        groups = self.low.shape[1]
        return part.view(part.shape[0], groups, part.shape[1] // groups)


def group_ranges(weight: Tensor, size: int) -> Ranges:
    """Of a weight (rows, columns), float32, float16 or bfloat16, finite, at least one column."""
    whole = weight.shape[1] // size * size
    groups = weight[:, :whole].view(weight.shape[0], whole // size, size)
    low, high = groups.amin(2), groups.amax(2)  # aminmax takes longer than both
    if whole < weight.shape[1]:
        rest = weight[:, whole:]
        low = torch.cat([low, rest.amin(1, keepdim=True)], dim=1)
        high = torch.cat([high, rest.amax(1, keepdim=True)], dim=1)
    return Ranges(size, low.float(), high.float())


def merged(ranges: Ranges, factor: int) -> Ranges:
    """`group_ranges` of groups `factor` times as long, without another look at the weight."""
    rows, groups = ranges.low.shape
    short = -groups % factor
    together = (rows, (groups + short) // factor, factor)
    low = torch.nn.functional.pad(ranges.low, (0, short), value=torch.inf).view(together)
    high = torch.nn.functional.pad(ranges.high, (0, short), value=-torch.inf).view(together)
    return Ranges(ranges.size * factor, low.amin(2), high.amax(2))


def positions_in_groups(weight: Tensor, size: int, zero: ZeroPoint = ZeroPoint.INTEGER) -> Positions:
    """Where each weight lies in the cell of its own rounding.

    Left out are the largest and the smallest weights of each group, ties included, and so all of a constant group. No
    code but theirs is clamped, a tie at a boundary aside. Zeros are not left out; under INTEGER each is at 0.5.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, finite.
        size: weights of a group.
        zero: the convention.

    Raises:
        ValueError: another shape, or no size.
    """
    _check(weight, size)
    position = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    left_out = torch.empty(weight.shape, dtype=torch.bool, device=weight.device)
    for rows in _pieces(weight):
        w = weight[rows].float()
        for groups in _spans(group_ranges(w, size), w.shape[1]):
            part = groups.of(w)
            _place(part, groups, zero, out=groups.of(position[rows]), scratch=torch.empty_like(part))
            torch.logical_or(part == groups.low, part == groups.high, out=groups.of(left_out[rows]))
    return Positions(position, left_out)


def fine_index(
    weight: Tensor,
    size: int,
    bins: int,
    zero: ZeroPoint = ZeroPoint.INTEGER,
    *,
    ranges: Ranges | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """floor(bins x position), at most bins - 1, as `positions_in_groups` has it, and `bins` where left out.

    What `torch.bincount(..., minlength=bins + 1)` takes: the last count is that of the weights left out.

    Args:
        weight: (rows, columns), float32, float16 or bfloat16, finite.
        size: weights of a group.
        bins: over positions 0..1, at most 2^20; with a power of two no position is rounded.
        zero: the convention.
        ranges: `group_ranges(weight, size)`, or shorter ones `merged`, where the caller has them.
        out: int32 of the shape of `weight`, written and returned.

    Raises:
        ValueError: another shape, or no size.
    """
    _check(weight, size)
    index = torch.empty(weight.shape, dtype=torch.int32, device=weight.device) if out is None else out
    for rows in _pieces(weight):
        w = weight[rows].float()
        here = group_ranges(w, size) if ranges is None else Ranges(size, ranges.low[rows], ranges.high[rows])
        for groups in _spans(here, w.shape[1]):
            part = groups.of(w)
            x, scratch = torch.empty_like(part), torch.empty_like(part)
            _place(part, groups, zero, out=x, scratch=scratch)
            _into_bins(x, part, groups, bins, scratch=scratch)
            groups.of(index[rows]).copy_(x)
    return index


def _check(weight: Tensor, size: int) -> None:
    if weight.dim() != 2 or size < 1:
        raise ValueError(f"groups take (rows, columns) and a size of at least 1, not {tuple(weight.shape)} and {size}")


def _pieces(weight: Tensor) -> list[slice]:
    """Rows that are looked at together; none where there is no weight."""
    rows, columns = weight.shape
    many = max(1, _ELEMENTS_AT_ONCE // max(columns, 1))
    return [slice(start, start + many) for start in range(0, rows if columns else 0, many)]


def _spans(ranges: Ranges, columns: int) -> list[_Groups]:
    """The whole groups, then a short last one; only those that there are."""
    groups = columns // ranges.size
    whole = groups * ranges.size
    low, high = ranges.low[..., None], ranges.high[..., None]  # (rows, groups, 1)
    spans = [
        _Groups(slice(0, whole), low[:, :groups], high[:, :groups]),
        _Groups(slice(whole, columns), low[:, groups:], high[:, groups:]),
    ]
    return [span for span in spans if span.low.shape[1]]


def _place(w: Tensor, groups: _Groups, zero: ZeroPoint, *, out: Tensor, scratch: Tensor) -> None:
    """Positions of w, (rows, groups, weights of a group), into `out`, all float32."""
    match zero:
        case ZeroPoint.INTEGER:
            span = groups.high.clamp(min=0) - groups.low.clamp(max=0)
            torch.div(w, torch.where(span == 0, torch.full_like(span, 2), span) / CODE_MAX, out=out)
        case ZeroPoint.FLOAT:
            # As there: a Python number that is divided goes through the reciprocal, in two roundings.
            inverse = (CODE_MAX / (groups.high - groups.low)).clamp(max=_INVERSE_MAX)
            torch.mul(w, inverse, out=out).add_(-groups.low * inverse)
        case _:
            assert_never(zero)
    position_(out, scratch)


def _into_bins(position: Tensor, w: Tensor, groups: _Groups, bins: int, *, scratch: Tensor) -> None:
    """`position` made the index as a float32, in place, by arithmetic alone: comparisons take several times as long."""
    last = float(torch.nextafter(torch.tensor(float(bins)), torch.tensor(0.0)))
    position.mul_(bins).clamp_(max=last)
    # The distance to the nearer end, which is zero at the ends only: unequal float32 never have a difference of zero.
    torch.minimum(torch.sub(w, groups.low, out=scratch), groups.high - w, out=scratch)
    torch.maximum(position, scratch.sign_().mul_(-bins).add_(bins), out=position)
