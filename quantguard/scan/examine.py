"""What the counts of one weight say under one grid, and whether it is chance, honest, or an attacker's work.

Effect size comes before significance: in a tensor of a hundred million weights everything is significant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

import torch
from scipy import special
from torch import Tensor

from quantguard.core.layer import POSITION_BINS, PositionHistogram
from quantguard.scan.cells import Cells
from quantguard.scan.rise import Rise, find_rise, signed_root, trimmed

SHARE: Final = 0.004  # of the weights that must be in excess
RATIO: Final = 1.4  # of the densities on the two sides of a rise
SIGNIFICANCE: Final = 1e-3  # corrected over windows, weights and grids
TRIMMED: Final = 3.0  # standard deviations that must be left without the half-cells that carry most
ON_GRID: Final = 0.95  # of the weights on a level: the tensor was quantized and dequantized
ATOMS: Final = 0.01  # of the weights, in excess on the levels alone
ATOMS_RATIO: Final = 2.0  # of the density on the levels over that beside them
NEAR_GRID: Final = 2.0  # times the expected weights within a tenth of a cell of a level: merged after dequantization
CARRIED: Final = 0.9  # of the weights whose half-cells show a rise: in a tensor of few values, its atoms are in 0.7
NEAR_SHARE: Final = 0.02  # of the weights in excess, where most lie about their levels and the rest is their tails
CROWDED: Final = 1.2  # times as dense at the boundary as behind: trained with the quantizer, or hardened
_DEVIATIONS: Final = 6.0  # about what SIGNIFICANCE is, corrected over a small model
_PILE: Final = 0.04  # of the cell: a wider window is an excess that is spread
_DEPLETED: Final = 0.8  # of the expectation, at the boundary
_SHARP: Final = 5.0  # times as dense: a pile, however wide the strip beside it
_NARROW: Final = 8  # positions of 256: where the expectation is good for no more, only piles as narrow are looked for
_ABOUT: Final = 0.1  # of the cell: weights this near to their level are about it
_BESIDE: Final = 0.03  # of the cell: what atoms are compared with


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
    bins: Tensor  # observed and expected by position, POSITION_BINS each, before any smoothing: float64
    discrete: bool = False  # its blocks hold few different values

    @property
    def p_value(self) -> float:
        """Chance of the most significant rise or atom, Bonferroni over the windows; 0..1."""
        strongest = max(self.rise, self.atoms, key=lambda rise: rise.z)
        return min(1.0, strongest.tests * float(special.ndtr(-strongest.z)))

    def kind(self, p_value: float) -> Kind:
        """What this is, given the p-value corrected over all weights and grids."""
        if self.on_level >= ON_GRID:
            return Kind.ON_GRID
        significant = p_value < SIGNIFICANCE
        if significant and self._set_on_levels():
            return Kind.ATOMS
        if significant and self._matters():
            spread = self.rise.end - self.rise.begin > _PILE or self.rise.begin < _PILE
            return (
                Kind.DEPLETED if spread and self.rise.depleted < _DEPLETED and self.rise.ratio < _SHARP else Kind.PILE
            )
        if self.near >= NEAR_GRID:
            return Kind.NEAR_GRID
        return Kind.CROWDED if self.crowded >= CROWDED and self.crowded_z > 7 else Kind.CLEAN

    @property
    def histogram(self) -> PositionHistogram:
        observed, expected = self.bins
        return PositionHistogram(tuple(observed.long().tolist()), tuple(expected.round(decimals=3).tolist()))

    @property
    def strength(self) -> float:
        """How many times over the thresholds are met, the least of them; an alarm has 1 or more and is significant.

        What ROC curves are drawn over: >= 0.
        """
        if self.on_level >= ON_GRID or self._scattered():
            return 0.0
        rise, atoms = self.rise, self.atoms
        share = NEAR_SHARE if self.near >= NEAR_GRID else SHARE
        found = [min(rise.z / _DEVIATIONS, rise.share / share, rise.ratio / RATIO, rise.trimmed / TRIMMED)]
        if self.near < NEAR_GRID and not self.discrete:
            found.append(
                min(atoms.z / _DEVIATIONS, atoms.share / ATOMS, atoms.ratio / ATOMS_RATIO, atoms.trimmed / TRIMMED)
            )
        return max(0.0, *found)

    def _matters(self) -> bool:
        rise = self.rise
        share = NEAR_SHARE if self.near >= NEAR_GRID else SHARE
        return rise.share >= share and rise.ratio >= RATIO and rise.trimmed >= TRIMMED and not self._scattered()

    def _set_on_levels(self) -> bool:
        atoms = self.atoms
        matters = atoms.share >= ATOMS and atoms.ratio >= ATOMS_RATIO and atoms.trimmed >= TRIMMED
        return matters and self.near < NEAR_GRID and not self.discrete

    def _scattered(self) -> bool:
        """Few different values, as another format leaves them, which lie at no one position in every cell.

        A tensor that is wholly prepared has few values too: those at the two ends of each cell.
        """
        return self.discrete and self.rise.carried < CARRIED


def examine_laid(
    observed: Tensor, expected: Tensor, cells: Cells, on_level: float, *, narrow: bool = False
) -> Examined:
    """What weights laid over one another by half-cell say: of one tensor, or of all.

    `narrow` looks for piles of a few positions only: the expectation is not good for more.
    """
    lower_o, upper_o = cells.sides @ observed  # (positions,)
    total = float(lower_o.sum() + upper_o.sum())
    sides_e = cells.sides @ expected
    lower_e, upper_e = sides_e * (total / max(float(sides_e.sum()), 1e-9))
    o, e = lower_o + upper_o, lower_e + upper_e
    about = int(2 * cells.axis.positions * (0.5 - _ABOUT))  # first position about the level
    near = float(o[about:].sum() / e[about:].sum().clamp(min=1e-9))
    crowded, crowded_z = _crowded(o, e)
    widest = max(1, _NARROW * cells.axis.positions // 256) if narrow else None
    rise = find_rise(observed, expected, widest=widest, until=about if near >= NEAR_GRID else None)
    return Examined(
        grid=cells.axis.grid,
        weights=int(total),
        on_level=on_level,
        near=near,
        crowded=crowded,
        crowded_z=crowded_z,
        atoms=_atoms(o, e, trimmed(observed, expected, *_atom_windows(cells.axis.positions))),
        rise=rise,
        bins=torch.stack([_unfolded(lower_o, upper_o), _unfolded(lower_e, upper_e)]),
    )


def _crowded(o: Tensor, e: Tensor) -> tuple[float, float]:
    """Density in the first hundredth of the cell over that from 5 to 20 %, and its significance."""
    positions = len(o)
    at, behind = slice(0, max(1, positions // 50)), slice(positions // 10, 2 * positions // 5)
    parts = [float(part.sum()) for part in (o[behind], e[behind], o[at], e[at])]
    ratio = parts[2] / max(parts[3], 1e-9) / max(parts[0] / max(parts[1], 1e-9), 1e-9)
    return ratio, float(signed_root(*parts))


def _atom_windows(positions: int) -> tuple[slice, slice]:
    """What lies a little beside the level, and the level."""
    return slice(int(2 * positions * (0.5 - _BESIDE)), positions - 1), slice(positions - 1, positions)


def _atoms(o: Tensor, e: Tensor, without_most: float) -> Rise:
    """Weights on the levels, over those a little beside them: a rise that ends on the level itself."""
    positions = len(o)
    parts = [float(part[window].sum()) for window in _atom_windows(positions) for part in (o, e)]
    outer_o, outer_e, inner_o, inner_e = parts
    level = outer_o / max(outer_e, 1e-9)
    return Rise(
        z=float(signed_root(*parts)),
        share=(inner_o - inner_e * level) / max(float(o.sum()), 1.0),
        ratio=(inner_o + 1) / (inner_e * level + 1),
        begin=0.5 - 0.5 / positions,
        end=0.5,
        depleted=level,
        trimmed=without_most,
        tests=1,
    )


def _unfolded(lower: Tensor, upper: Tensor) -> Tensor:
    """Positions from the lower boundary to the upper, in POSITION_BINS bins."""
    return torch.cat([lower, upper.flip(0)]).view(POSITION_BINS, -1).sum(1)
