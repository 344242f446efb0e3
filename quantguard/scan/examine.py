"""What the counts of one weight say under one grid, and whether it is chance, honest, or an attacker's work.

Effect size comes before significance: in a tensor of a hundred million weights everything is significant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

import torch
from scipy import stats
from torch import Tensor

from quantguard.core.layer import POSITION_BINS, PositionHistogram
from quantguard.scan.cells import Cells
from quantguard.scan.rise import Rise, find_rise, signed_root

SHARE: Final = 0.004  # of the weights that must be in excess
RATIO: Final = 1.15  # of the densities on the two sides of a rise
SIGNIFICANCE: Final = 1e-6  # corrected over windows, weights and grids
TRIMMED: Final = 3.0  # standard deviations that must be left without the half-cells that carry most
ON_GRID: Final = 0.95  # of the weights on a level: the tensor was quantized and dequantized
ATOMS: Final = 0.01  # of the weights, in excess on the levels alone
ATOMS_RATIO: Final = 2.0  # of the density on the levels over that beside them
NEAR_GRID: Final = 2.0  # times the expected weights within a tenth of a cell of a level: merged after dequantization
CROWDED: Final = 1.2  # times as dense at the boundary as behind: trained with the quantizer, or hardened
_PILE: Final = 0.04  # of the cell: a wider window is an excess that is spread
_DEPLETED: Final = 0.8  # of the expectation, at the boundary
_NARROW: Final = 8  # positions: with the levels taken out, only piles as narrow as this are looked for


class Kind(Enum):
    CLEAN = "clean"
    PILE = "pile"  # at one distance from the boundary
    DEPLETED = "depleted"  # a strip at the boundary is emptier than what lies further in
    ATOMS = "atoms"  # on the levels, and not all of the weights
    ON_GRID = "on grid"  # all of them on the levels
    NEAR_GRID = "near grid"  # all of them about the levels
    CROWDED = "crowded"  # about the boundaries


SUSPICIOUS: Final = frozenset({Kind.PILE, Kind.DEPLETED, Kind.ATOMS})


@dataclass(frozen=True, slots=True)
class Examined:
    """One weight under one grid."""

    grid: str
    weights: int  # that lie in a half-cell
    on_level: float  # share of them on a level, 0..1
    near: float  # weights within a tenth of a cell of a level over the expectation
    crowded: float  # density at the boundary over that behind it
    crowded_z: float
    atoms: Rise  # of the level over what lies beside it
    rise: Rise
    histogram: PositionHistogram

    @property
    def p_value(self) -> float:
        """Chance of the most significant rise or atom, Bonferroni over the windows; 0..1."""
        strongest = max(self.rise, self.atoms, key=lambda rise: rise.z)
        return min(1.0, strongest.tests * float(stats.norm.sf(strongest.z)))

    def kind(self, p_value: float) -> Kind:
        """What this is, given the p-value corrected over all weights and grids."""
        if self.on_level >= ON_GRID:
            return Kind.ON_GRID
        significant = p_value < SIGNIFICANCE
        if significant and self.atoms.share >= ATOMS and self.atoms.ratio >= ATOMS_RATIO and self.near < NEAR_GRID:
            return Kind.ATOMS
        if significant and self._matters():
            spread = self.rise.end - self.rise.begin > _PILE and self.rise.depleted < _DEPLETED
            return Kind.DEPLETED if spread else Kind.PILE
        if self.near >= NEAR_GRID:
            return Kind.NEAR_GRID
        return Kind.CROWDED if self.crowded >= CROWDED and self.crowded_z > 7 else Kind.CLEAN

    def _matters(self) -> bool:
        rise = self.rise
        return rise.share >= SHARE and rise.ratio >= RATIO and rise.trimmed >= TRIMMED


def examine(counts: Tensor, coefficients: Tensor, cells: Cells) -> Examined:
    """`counts` are of the axis that `cells` were cut out of, (FINE + 1,); `coefficients` of the density on it."""
    return examine_laid(cells.observed(counts), cells.expected(coefficients), cells, cells.on_level(counts))


def examine_laid(observed: Tensor, expected: Tensor, cells: Cells, on_level: float) -> Examined:
    """The same for weights laid over one another by half-cell already: of one tensor, or of all."""
    total = float(observed.sum())
    expected = expected * (total / float(expected.sum()))
    near = float(observed[cells.near].sum() / expected[cells.near].sum().clamp(min=1e-9))
    crowded, crowded_z = _crowded(observed, expected)
    if near >= NEAR_GRID:
        away = (~cells.near).double()
        rise = find_rise(observed * away, expected * away, widest=max(1, _NARROW * cells.axis.positions // 256))
    else:
        rise = find_rise(observed, expected)
    return Examined(
        grid=cells.axis.grid,
        weights=int(total),
        on_level=on_level,
        near=near,
        crowded=crowded,
        crowded_z=crowded_z,
        atoms=_atoms(observed, expected, cells),
        rise=rise,
        histogram=_histogram(observed, expected, cells),
    )


def _crowded(observed: Tensor, expected: Tensor) -> tuple[float, float]:
    """Density in the first hundredth of the cell over that from 5 to 20 %, and its significance."""
    positions = observed.shape[1]
    at, behind = slice(0, max(1, positions // 50)), slice(positions // 10, 2 * positions // 5)
    parts = [part.sum() for part in (observed[:, behind], expected[:, behind], observed[:, at], expected[:, at])]
    ratio = float(parts[2] / parts[3].clamp(min=1e-9) / (parts[0] / parts[1].clamp(min=1e-9)).clamp(min=1e-9))
    return ratio, float(signed_root(*parts))


def _atoms(observed: Tensor, expected: Tensor, cells: Cells) -> Rise:
    """Weights on the levels, over those a little beside them: a rise whose inner window is the level itself."""
    beside = cells.near & ~cells.level
    parts = [(part * mask).sum() for mask in (beside, cells.level) for part in (observed, expected)]
    outer_o, outer_e, inner_o, inner_e = parts
    level = float(outer_o / outer_e.clamp(min=1e-9))
    total = max(float(observed.sum()), 1.0)
    return Rise(
        z=float(signed_root(*parts)),
        share=(float(inner_o) - float(inner_e) * level) / total,
        ratio=float((inner_o + 1) / (inner_e * level + 1)),
        begin=0.5,
        end=0.5,
        depleted=level,
        trimmed=0.0,
        tests=1,
    )


def _histogram(observed: Tensor, expected: Tensor, cells: Cells) -> PositionHistogram:
    """Positions from the lower boundary to the upper, before any smoothing."""

    def unfolded(values: Tensor) -> list[float]:
        lower, upper = values[~cells.upper].sum(0), values[cells.upper].sum(0).flip(0)
        whole = torch.cat([lower, upper])  # (2 x positions,)
        edges = torch.linspace(0, whole.numel(), POSITION_BINS + 1).long()
        running = torch.cat([torch.zeros(1, dtype=whole.dtype), whole.cumsum(0)])
        bins: list[float] = (running[edges[1:]] - running[edges[:-1]]).tolist()
        return bins

    return PositionHistogram(tuple(int(v) for v in unfolded(observed)), tuple(round(v, 3) for v in unfolded(expected)))
