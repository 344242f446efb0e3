"""Grids of other quantizers, by position only: GGUF's Q4_K and Q6_K, and asymmetric groups of 32, 64 and 128.

Their scales are searched for or shared in other ways, so that a smooth density of the weights is not one of the
positions: a k-quant's search pulls weights towards its levels. What an honest tensor shows is therefore a smooth curve
over the position itself, taken from the same weights. A sharp pile or atoms on the levels stand out of it; a margin
that is spread widely does not. Looked at on a sample.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch import Tensor

from quantguard.grids.cells.groups import ZeroPoint, positions_in_groups
from quantguard.grids.cells.k_quants import KQuant, positions_in_super_blocks
from quantguard.grids.cells.position import Positions
from quantguard.scan.cells import Axis, Cells
from quantguard.scan.density import poisson_regression
from quantguard.scan.examine import Examined, examine_laid

POSITIONS: Final = 128  # in half a cell
GROUPS: Final = (32, 64, 128)
ZERO_POINTS: Final = {ZeroPoint.INTEGER: "", ZeroPoint.FLOAT: ", float zero"}  # as GPTQ and AWQ have it; as HQQ

_SUPER_BLOCK: Final = 256
_ABOUT_ZERO: Final = 0.25  # of the root mean square: left out
_WAVES: Final = 5  # cosines of the position, the constant among them: what a k-quant's search makes takes four


def positions_of(sample: Tensor) -> dict[str, Tensor]:
    """Weights by position under each grid that can hold the sample: name -> float64, (2, POSITIONS).

    `sample` is float32, (segments, width), segments of rows. The halves are those of the cell, each from its boundary
    to the level. Zeros and what is next to them are left out, and so is a grid whose groups are longer than a segment.
    """
    found: dict[str, Tensor] = {}
    # About zero, a heavy-tailed density has a cusp of its own, and the level of zero lies on it.
    large = sample.abs() > _ABOUT_ZERO * sample.square().mean().sqrt()
    if sample.shape[1] % _SUPER_BLOCK == 0:
        blocks = sample.reshape(-1, _SUPER_BLOCK)
        for kind in KQuant:
            try:
                found[kind.name] = _laid(positions_in_super_blocks(kind, blocks), large.view(-1, _SUPER_BLOCK))
            except ValueError:  # weights that the format cannot hold: no file of it has them
                continue
    for size in GROUPS:
        if sample.shape[1] % size == 0:
            for zero, name in ZERO_POINTS.items():
                found[f"groups of {size}{name}"] = _laid(positions_in_groups(sample, size, zero), large)
    return found


def examine_positions(grid: str, observed: Tensor) -> Examined:
    """What the positions of one tensor say, or of several added up: float64, (2, POSITIONS)."""
    cells = _cells(grid)
    total = observed.sum()
    flat = torch.zeros(_WAVES, dtype=torch.float64)
    flat[0] = ((total + 1) / POSITIONS).log()
    curve = poisson_regression(observed.sum(0), _waves(), torch.ones(POSITIONS, dtype=torch.float64), flat)
    expected = torch.exp(_waves() @ curve).expand(2, -1) / 2
    on_level = float(observed[:, -POSITIONS // 25 :].sum() / total) if total else 0.0
    return examine_laid(observed, expected, cells, on_level, narrow=True)


def _laid(found: Positions, large: Tensor) -> Tensor:
    position = found.position[~found.left_out & large]
    bins = (position * 2 * POSITIONS).long().clamp(0, 2 * POSITIONS - 1)
    whole = torch.bincount(bins, minlength=2 * POSITIONS).double()
    # What is on the level itself belongs to both halves: in one alone, atoms would look like an accident of it.
    on = (position == 0.5).sum() / 2
    whole[POSITIONS - 1] += on
    whole[POSITIONS] -= on
    return torch.stack([whole[:POSITIONS], whole[POSITIONS:].flip(0)])


@cache
def _waves() -> Tensor:
    """cos 2 pi k t, k = 0.., at the middle of each position t in (0, 0.5): float64, (POSITIONS, _WAVES)."""
    t = (torch.arange(POSITIONS, dtype=torch.float64) + 0.5) / POSITIONS / 2
    return torch.stack([torch.cos(2 * torch.pi * wave * t) for wave in range(_WAVES)], dim=1)


@cache
def _cells(grid: str) -> Cells:
    """A single cell, whose level lies in its middle."""
    none = torch.zeros(0, dtype=torch.int64)
    ones = torch.ones(2, POSITIONS, dtype=torch.float64)
    return Cells(
        axis=Axis(grid, "sample", none.double(), none.double(), POSITIONS),
        halves=2,
        low=none,
        high=none,
        sides=torch.eye(2, dtype=torch.float64),
        fine=ones,
        basis=ones[..., None],
        on=none.double(),
        resolved=none.double(),
    )
