"""The rounding grids of bitsandbytes: where every weight lies, and where it may be moved.

Words. A weight is *normalised* by its scale; the scale is the absolute maximum (absmax) of its block of consecutive
weights (NF4, FP4) or of its output row (INT8). A *level* is a normalised value that quantization can store;
*boundaries* lie half way between levels; the *cell* of a level is what lies between its boundaries. Levels are indexed
in ascending order, so that a neighbour is always index +- 1 (bitsandbytes' FP4 codes are not sorted and hold zero
twice).

Every method takes a weight of shape (rows, columns), float32, float16 or bfloat16, and none changes it. Arithmetic is
that of the library's own kernels, in their order and precision (bitsandbytes 0.50, backends/default/ops.py), because a
weight beside a boundary is decided by the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

import torch
from torch import Tensor

from quantguard.core.scheme import Scheme
from quantguard.grids.block import BLOCK_SIZE, block_absmax, block_normalise, block_scale, fp4_levels, nf4_levels
from quantguard.grids.row import int8_levels, row_normalise, row_scale

# Cells. A GPU's kernels stored another code for weights up to 7.6e-6 of a cell from a boundary and for none beyond it
# (benchmarks/grids_device.py on an H200, docs/benchmarks.md).
_KERNELS_DIFFER: Final = 5e-5


@dataclass(frozen=True, slots=True)
class Grid:
    """The arithmetic of one scheme."""

    scheme: Scheme
    block_size: int  # weights that share a scale; 0 for a whole row

    @property
    def levels(self) -> Tensor:
        """Normalised levels, ascending, float32, shape (levels,). INT8's are the integers -127..127."""
        match self.scheme:
            case Scheme.NF4 | Scheme.NF4_DOUBLE:
                return nf4_levels()
            case Scheme.FP4 | Scheme.FP4_DOUBLE:
                return fp4_levels()
            case Scheme.INT8:
                return int8_levels()
            case _:
                assert_never(self.scheme)

    @property
    def boundaries(self) -> Tensor:
        """Midpoints of neighbouring levels, ascending, float32, shape (levels - 1,)."""
        levels = self.levels
        return (levels[:-1] + levels[1:]) / 2

    def scale(self, weight: Tensor) -> Tensor:
        """Absmax of each weight's block or row: float32, the shape of `weight`."""
        return row_scale(weight) if self.scheme is Scheme.INT8 else block_scale(weight, self.block_size)

    def normalise(self, weight: Tensor) -> Tensor:
        """Position on the axis of the levels, as the library computes it: float32, the shape of `weight`."""
        if self.scheme is Scheme.INT8:
            return row_normalise(weight)
        return block_normalise(weight, self.block_size)

    def nearest(self, weight: Tensor) -> Tensor:
        """Index of the level that bitsandbytes stores for each weight: int64, the shape of `weight`."""
        x = self.normalise(weight)
        if self.scheme is Scheme.INT8:  # half to even, which midpoints cannot express
            return torch.nan_to_num(x).round().clamp(-127, 127).long() + 127
        return torch.bucketize(x, self.boundaries.to(x.device))

    def dequantize(self, index: Tensor, scale: Tensor) -> Tensor:
        """What the library gives back for level `index` under `scale`: float32, the shape of `index`."""
        value = self.levels.to(index.device)[index] * scale
        # bitsandbytes multiplies by the float32 reciprocal instead of dividing by 127
        return value * 7.874015718698502e-3 if self.scheme is Scheme.INT8 else value

    def cell(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised lower and upper boundary of the cell of each level; the outermost end at the last level."""
        levels = self.levels
        edges = torch.cat([levels[:1], self.boundaries, levels[-1:]]).to(index.device)
        return edges[index], edges[index + 1]

    def position_in_cell(self, weight: Tensor) -> Tensor:
        """0 at the lower boundary of the weight's own cell, 1 at the upper: float32, the shape of `weight`."""
        lower, upper = self.cell(self.nearest(weight))
        return ((self.normalise(weight) - lower) / (upper - lower)).clamp(0, 1)

    def on_boundary(self, weight: Tensor) -> Tensor:
        """True where the kernels of another device may store the level across the boundary: bool."""
        level, x = self.nearest(weight), self.normalise(weight)
        lower, upper = self.cell(level)
        near = _KERNELS_DIFFER * (upper - lower)
        last = self.levels.numel() - 1  # the outermost cells end at their levels: nothing lies beyond
        return ((x - lower < near) & (level > 0)) | ((upper - x < near) & (level < last))

    def enclosing(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the levels below and above each weight (one apart, also on a level): int64."""
        levels = self.levels.to(weight.device)
        low = torch.bucketize(self.normalise(weight), levels, right=True) - 1
        low = low.clamp(0, levels.numel() - 2)
        return low, low + 1

    def position(self, weight: Tensor) -> Tensor:
        """r of the paper: 0 on the level below, 1 on the level above: float32 in [0, 1], the shape of `weight`.

        "Breaking the Rounding Trap" (arXiv 2606.29239), with the weight normalised for 4-bit schemes too.
        """
        levels = self.levels.to(weight.device)
        low, high = self.enclosing(weight)
        return ((self.normalise(weight) - levels[low]) / (levels[high] - levels[low])).clamp(0, 1)

    def neighbour(self, weight: Tensor) -> Tensor:
        """Index of the level across the boundary that is nearest to each weight: int64, the shape of `weight`."""
        nearest = self.nearest(weight)
        low, high = self.enclosing(weight)
        return torch.where(nearest == low, high, low)

    def pinned(self, weight: Tensor) -> Tensor:
        """True where the weight's magnitude decides its block's or row's scale (or ties with it): bool.

        All of a block of zeros is pinned.
        Moving one of these moves every code that shares the scale, so no method here ever does.
        """
        deciding = weight.half() if self.scheme is Scheme.INT8 else weight
        return deciding.float().abs() >= self.magnitude_limit(deciding)

    def interval(self, weight: Tensor, margin: float | Tensor) -> tuple[Tensor, Tensor]:
        """Bounds within which each weight keeps its level: two float32 tensors of the shape of `weight`.

        The cell is shrunk at both ends by `margin` (a share of its width, 0..0.5, one for all or one a weight) and
        then widened, where it must be, to hold the weight itself; a pinned weight has both bounds at its own value
        (Egashira et al., NeurIPS 2024).
        INT8 rounds to float16 first, so that a margin below 1/16 does not keep every level there.
        """
        lower, upper = self.cell(self.nearest(weight))
        width = upper - lower
        unit = self.unit(weight)
        w = weight.float()
        low = torch.minimum((lower + margin * width) * unit, w)
        high = torch.maximum((upper - margin * width) * unit, w)
        pinned = self.pinned(weight)
        return torch.where(pinned, w, low), torch.where(pinned, w, high)

    def value(self, weight: Tensor, index: Tensor) -> Tensor:
        """The value, in the weight's own units, of level `index` under the scales of `weight`: float32."""
        return self.levels.to(weight.device)[index] * self.unit(weight)

    def magnitude_limit(self, weight: Tensor) -> Tensor:
        """Largest magnitude among the weights that share a scale, before any cast: float32, the shape of `weight`."""
        if self.scheme is Scheme.INT8:
            return weight.float().abs().amax(dim=1, keepdim=True).expand(weight.shape)
        return block_absmax(weight, self.block_size)

    def unit(self, weight: Tensor) -> Tensor:
        """How much weight one unit of the normalised axis is: float32, the shape of `weight`."""
        scale = self.scale(weight)
        return scale / 127 if self.scheme is Scheme.INT8 else scale


NF4: Final = Grid(Scheme.NF4, BLOCK_SIZE)
FP4: Final = Grid(Scheme.FP4, BLOCK_SIZE)
INT8: Final = Grid(Scheme.INT8, 0)


def grid_for(scheme: Scheme) -> Grid:
    """The grid of the codes of `scheme`, with the library's default block size."""
    return {Scheme.NF4: NF4, Scheme.FP4: FP4, Scheme.INT8: INT8}[scheme.codes]
