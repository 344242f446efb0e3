"""Everything measured on the weights of a checkpoint, before anything is called suspicious."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from quantguard.checkpoint.layout import Checkpoint
from quantguard.checkpoint.tensors import read_tensor, require_finite
from quantguard.core.layer import ALL_WEIGHTS
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.outlier import Outliers, outliers_of
from quantguard.scan.cells import Cells, cells_of
from quantguard.scan.density import fit_density, running_sum
from quantguard.scan.discrete import few_values
from quantguard.scan.examine import NEAR_GRID, ON_GRID, Examined, examine_laid
from quantguard.scan.formats import examine_positions, positions_of
from quantguard.scan.histogram import Counts
from quantguard.scan.plan import Planned
from quantguard.scan.reading import OnBytes, Reader, Tally, tallies

SMALL: Final = 1024  # weights: of fewer, chance alone decides


@dataclass(frozen=True, slots=True)
class Weight:
    """One linear weight under every grid."""

    name: str
    weights: int  # counted
    examined: tuple[Examined, ...]
    outliers: Outliers
    discrete: bool = False  # few different values: quantized before, by whatever format


@dataclass(slots=True)
class Survey:
    """What has been measured so far; of several processes, theirs are added up."""

    tensors: int = 0  # linear weights, small ones among them
    elements: int = 0  # of them
    weights: list[Weight] = field(default_factory=list)
    laid: dict[tuple[str, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    """(scheme, zero bits) -> observed and expected by half-cell, of all weights."""
    positions: dict[str, Tensor] = field(default_factory=dict)
    """Grid of another format -> observed by position, of all weights."""
    small: dict[int, Counts] = field(default_factory=dict)
    """Zero bits -> counts of all tensors that are too small to say anything alone."""

    def add(self, other: Survey) -> None:
        self.tensors += other.tensors
        self.elements += other.elements
        self.weights += other.weights
        for key, (observed, expected) in other.laid.items():
            self._lay(key, observed, expected)
        for grid, observed in other.positions.items():
            self.positions[grid] = self.positions.get(grid, torch.zeros(())) + observed
        for bits, counts in other.small.items():
            self._add_small(bits, counts)

    def take(self, tally: Tally, reader: Reader) -> None:
        """Examine one tensor under every grid, or add it to the small ones."""
        self.tensors += 1
        self.elements += tally.planned.weights
        if tally.planned.weights < SMALL and tally.counts is not None:
            self._add_small(tally.lattice.bits, tally.counts)
            return
        spread = tally.spread
        discrete = few_values(tally.sample)
        examined = [replace(one, discrete=discrete) for one in self._schemes(tally, reader, lay=not discrete)]
        # On a grid already, or about it, a tensor has atoms and gaps wherever one looks.
        if tally.planned.formats and not discrete and not any(_about_grid(one) for one in examined):
            for grid, observed in positions_of(spread).items():
                if observed.sum():
                    examined.append(examine_positions(grid, observed))
                    self.positions[grid] = self.positions.get(grid, torch.zeros(())) + observed
        planned = tally.planned
        outliers = outliers_of(spread)
        self.weights.append(Weight(planned.entry.name, planned.weights, tuple(examined), outliers, discrete))

    def together(self) -> Weight | None:
        """All weights laid over one another, each grid: a trace too faint in any one of them adds up."""
        for bits, counts in self.small.items():
            for scheme, laid in _laid(counts, bits).items():
                self._lay((scheme.value, bits), laid.observed, laid.expected)
        self.small = {}
        examined = [
            examine_laid(observed, expected, cells_of(Scheme(scheme), bits), 0.0)
            for (scheme, bits), (observed, expected) in self.laid.items()
        ]
        examined += [examine_positions(grid, observed) for grid, observed in self.positions.items()]
        if not examined or (len(self.weights) == 1 and self.tensors == 1):
            return None
        return Weight(ALL_WEIGHTS, self.elements, tuple(examined), Outliers(0, 0.0, 1.0, 3.0))

    def _schemes(self, tally: Tally, reader: Reader, *, lay: bool) -> list[Examined]:
        """bitsandbytes' grids, but for those on which a tensor that lies on another grid already has no positions."""
        found = {scheme: _examined(laid) for scheme, laid in _laid_of(tally).items()}
        about = [scheme for scheme, (one, _) in found.items() if _about_grid(one)]
        if Scheme.INT8 in about:
            # Its 255 levels are a coarse dtype of the tensor's own; spread over it, 4-bit margins are still seen.
            again = next(iter(tallies(reader, [tally.planned], threads=1, on_bytes=lambda *_: None, spread=True)))
            found |= {s: _examined(laid) for s, laid in _laid_of(again).items() if s is not Scheme.INT8}
        elif about:
            found = {scheme: found[scheme] for scheme in about}
        for scheme, (one, laid) in found.items():
            if lay and not _about_grid(one):
                self._lay((scheme.value, tally.lattice.bits), laid.observed, laid.expected)
        return [one for one, _ in found.values()]

    def _add_small(self, bits: int, counts: Counts) -> None:
        self.small[bits] = self.small[bits].add_(counts) if bits in self.small else counts

    def _lay(self, key: tuple[str, int], observed: Tensor, expected: Tensor) -> None:
        """Add to what is laid there, in place; the first ones are kept, and are the caller's no more."""
        if key in self.laid:
            self.laid[key][0].add_(observed)
            self.laid[key][1].add_(expected)
        else:
            self.laid[key] = (observed, expected)


def _about_grid(one: Examined) -> bool:
    return one.on_level >= ON_GRID or one.near >= NEAR_GRID


@dataclass(frozen=True, slots=True)
class _Laid:
    """One tensor's weights laid over one another by half-cell."""

    cells: Cells
    observed: Tensor
    expected: Tensor
    on_level: float


def _laid_of(tally: Tally) -> dict[Scheme, _Laid]:
    return {} if tally.counts is None else _laid(tally.counts, tally.lattice.bits)


def _laid(counts: Counts, bits: int) -> dict[Scheme, _Laid]:
    axes = {"block": counts.block, "row": counts.row}
    running = {axis: running_sum(counts) for axis, counts in axes.items()}
    densities = {axis: fit_density(sums) for axis, sums in running.items()}
    laid = {}
    for scheme in ROUNDINGS:
        cells = cells_of(scheme, bits)
        axis = cells.axis.counts
        observed, expected = cells.observed(running[axis]), cells.expected(densities[axis])
        laid[scheme] = _Laid(cells, observed, expected, cells.on_level(axes[axis]))
    return laid


def _examined(laid: _Laid) -> tuple[Examined, _Laid]:
    return examine_laid(laid.observed, laid.expected, laid.cells, laid.on_level), laid


def survey(checkpoint: Checkpoint, plan: Iterable[Planned], *, device: str, threads: int, on_bytes: OnBytes) -> Survey:
    """Read and examine the tensors of `plan`, in threads of this process. Leaves torch with a single thread each.

    Raises:
        NonFiniteWeightsError: NaN or infinity in one of them, linear weight or not.
        CheckpointError: a file changed or cannot be read.
    """
    made = Survey()
    torch.set_num_threads(1)  # pieces are counted side by side: threads within an operation would wait for one another
    with Reader(checkpoint, device) as reader:
        for tally in tallies(reader, list(plan), threads=threads, on_bytes=on_bytes):
            if not tally.finite:
                _require_finite(checkpoint, tally)
            if tally.planned.linear:
                made.take(tally, reader)
    return made


def _require_finite(checkpoint: Checkpoint, tally: Tally) -> None:
    """Look again, at each value: a sum of finite ones may overflow, and the message is to say which is not."""
    entry = next(e for e in checkpoint.tensors if e.name == tally.planned.entry.name)
    require_finite(entry, read_tensor(checkpoint, entry))
