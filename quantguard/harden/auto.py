"""Our own method: few roundings, chosen by what they do to the outputs of each layer, for all schemes at once.

First NF4 and FP4 together, whose levels are far apart; then INT8, whose steps are finer than what the first ones moved.
See `descent` for the objective and docs/decisions/0014 for what it was chosen over.

It streams. The full-precision model runs over the calibration text and each layer's inputs are summed up in a matrix
of its own; as many layers as have room at once are repaired after one pass, and the next ones after another. Finished
layers are on disk, so that a killed run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor

from quantguard.core.errors import HardenError
from quantguard.core.progress import Progress
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import Grid, grid_for
from quantguard.harden.descent import descend
from quantguard.harden.interface import Repair, Task
from quantguard.harden.moments import second_moments
from quantguard.harden.pieces import row_pieces
from quantguard.harden.plan import repair_bytes
from quantguard.harden.recentre import prepared, recentred
from quantguard.harden.scales import deciding, furthest
from quantguard.models.memory import memory_text

FOUR_BIT_SHARE: Final = 0.03  # of the weights of a row that may move, for each 4-bit scheme
FOUR_BIT_RAISED: Final = 0.07  # in all, where the output error under one of them is not natural
INT8_SHARE: Final = 0.19  # that the descent may give another INT8 level, those moved for the others included
INT8_LEAST: Final = 0.12  # and at the least, where many moved for the others
INT8_CALM: Final = 0.06  # where the output error is natural
# Output error over that of weights that lie anywhere in their cells: of about 99 % of honest layers it is below this
NATURAL: Final[Mapping[Scheme, float]] = {Scheme.INT8: 1.3, Scheme.NF4: 1.3, Scheme.FP4: 1.7}

_SPREAD_LOSS: Final = 0.01  # of a layer's output; 0.0006 in prepared layers of the range, 350 beside injected outliers
_MOMENTS_ROOM: Final = 0.5  # of the free memory, for the moments of all layers of a pass


def auto(task: Task, progress: Progress) -> Repair:
    """Move weights of every layer until quantized outputs are those of full precision; see the module.

    Raises:
        HardenError: one layer needs more memory than is free, said before the work.
    """
    done = set(task.kept.resumed(task.weights))
    left = {name: shape for name, shape in task.shapes.items() if name not in done}
    runs = passes(left, task.room())
    if done:
        progress("harden, layers", len(done), len(task.weights), "done before")
    for number, names in enumerate(runs, 1):
        batches = task.corpus.once()
        told = partial(progress, "harden, inputs", total=len(batches), detail=f"pass {number} of {len(runs)}")
        moments = second_moments(task.loaded, names, batches, told)
        for name in names:
            weight = task.weights[name]
            # A layer that no text reached has no outputs to go by, and keeps its rounding.
            if name in moments:
                weight = _repaired(weight, moments[name].to(weight.device), task.schemes)
            task.kept.put(name, weight)
            done.add(name)
            progress("harden, layers", len(done), len(task.weights), name)
    return Repair(task.kept)


def passes(shapes: Mapping[str, tuple[int, int]], free: int) -> list[list[str]]:
    """Consecutive layers whose inputs are summed up in one pass of the model, given `free` bytes of memory.

    Args:
        shapes: layer -> (rows, columns).

    Raises:
        HardenError: one of them needs more alone.
    """
    runs: list[list[str]] = []
    taken = 0.0
    for name, (rows, columns) in shapes.items():
        moment = 4 * columns**2
        needed = repair_bytes(rows, columns)
        if needed > free:
            raise HardenError(
                f"{name} needs {memory_text(needed)} beside the model, and {memory_text(free)} are free",
                remedy="free memory, or use --device cpu on a machine with more of it",
            )
        if not runs or taken + moment > max(_MOMENTS_ROOM * free, moment):
            runs.append([])
            taken = 0.0
        runs[-1].append(name)
        taken += moment
    return runs


def _repaired(weight: Tensor, moment: Tensor, schemes: Sequence[Scheme]) -> Tensor:
    """One layer, whole rows and blocks at a time: rows have no part in one another."""
    return torch.cat([_repaired_rows(weight[rows], moment, schemes) for rows in row_pieces(*weight.shape)])


def _repaired_rows(weight: Tensor, moment: Tensor, schemes: Sequence[Scheme]) -> Tensor:
    frozen, limit = deciding(weight), furthest(weight)
    four_bit = [grid_for(scheme) for scheme in schemes if scheme is not Scheme.INT8]

    def lowered(start: Tensor, grids: Sequence[Grid], share: float, *, full: Tensor = weight) -> Tensor:
        return descend(full, moment, grids, start=start, frozen=frozen, limit=limit, share=share)

    moved = weight
    if four_bit:
        share = FOUR_BIT_SHARE * len(four_bit)
        raised = any(_error_ratio(grid, weight, moment) > NATURAL[grid.scheme] for grid in four_bit)
        chosen = lowered(moved, four_bit, max(share, FOUR_BIT_RAISED) if raised else share)
        moved = _spread(chosen, moment, four_bit, frozen, limit, beside_int8=Scheme.INT8 in schemes)
        if len(four_bit) > 1 and moved is not chosen:  # what moved within the cells of one changed levels of the other
            moved = lowered(moved, four_bit, share / 2)
    if Scheme.INT8 in schemes:
        int8 = [grid_for(Scheme.INT8)]
        flipped = torch.stack([grid.nearest(moved) != grid.nearest(weight) for grid in (*four_bit, *int8)]).any(0)
        share = max(INT8_LEAST, INT8_SHARE - float(flipped.double().mean()))
        if _error_ratio(int8[0], moved, moment) <= NATURAL[Scheme.INT8]:
            share = INT8_CALM
        # What full precision says now is right, and close: INT8 is to say the same.
        moved = _spread(lowered(moved, int8, share, full=moved), moment, int8, frozen, limit)
    return moved


def _spread(
    weight: Tensor,
    moment: Tensor,
    grids: Sequence[Grid],
    frozen: Tensor,
    limit: Tensor,
    *,
    beside_int8: bool = False,
) -> Tensor:
    """Recentred under each grid, or as it was where that would change what full precision says.

    It would where outliers decide the scales: the cells are then as wide as all other weights together.

    Args:
        beside_int8: what INT8 alone makes uneven, in rows that are one block, will be evened for it, and is no reason.
    """
    spread, int8 = weight, grid_for(Scheme.INT8)
    for grid in grids:
        if not beside_int8 or prepared(grid, recentred(int8, spread, frozen, limit), frozen):
            spread = recentred(grid, spread, frozen, limit)
    lost, whole = (_power(of, moment) for of in (spread.float() - weight.float(), weight.float()))
    return spread if lost <= _SPREAD_LOSS * whole else weight


def _error_ratio(grid: Grid, weight: Tensor, moment: Tensor) -> float:
    """Output error of stock rounding, over what it would be on average if it fell anywhere in its cell at random.

    About 1 for honest weights, 1.3 under FP4; more where their errors conspire. docs/decisions/0014 has the range's.
    """
    level = grid.nearest(weight)
    lower, upper = grid.cell(level)
    variance = ((upper - lower) * grid.unit(weight)).square() / 12  # of a uniform distribution
    expected = float((variance * moment.diagonal()).sum())
    return _power(grid.value(weight, level) - weight.float(), moment) / expected if expected else 1.0


def _power(weight: Tensor, moment: Tensor) -> float:
    """Mean square of what a weight, (rows, columns), puts out, summed over the rows: tr W H W^T."""
    return float(((weight @ moment) * weight).sum())
