"""Our own method: few roundings, chosen by what they do to the outputs of each layer, for all schemes at once.

First NF4 and FP4 together, whose levels are far apart; then INT8, whose steps are finer than what the first ones moved.
See `descent` for the objective and docs/decisions/0014 for what it was chosen over.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor

from quantguard.core.progress import Progress
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.harden.descent import descend
from quantguard.harden.interface import Repair, Task
from quantguard.harden.moments import second_moments
from quantguard.harden.scales import deciding, furthest

FOUR_BIT_SHARE: Final = 0.03  # of the weights of a row that may move, for each 4-bit scheme
INT8_SHARE: Final = 0.19  # of the weights whose INT8 level may change, those that moved for the others among them


def auto(task: Task, progress: Progress) -> Repair:
    """Move weights of every layer until quantized outputs are those of full precision; see the module."""
    batches = task.corpus.once()
    moments = second_moments(task.loaded, list(task.weights), batches, len(batches), progress)
    weights = {}
    for done, (name, weight) in enumerate(task.weights.items(), 1):
        weights[name] = _repaired(weight, moments[name], task.schemes) if name in moments else weight
        progress("harden, layers", done, len(task.weights), name)
    levels = {s: {name: grid_for(s).nearest(weight) for name, weight in weights.items()} for s in task.schemes}
    return Repair(weights, levels)


def _repaired(weight: Tensor, moment: Tensor, schemes: tuple[Scheme, ...]) -> Tensor:
    frozen, limit = deciding(weight), furthest(weight)
    four_bit = [grid_for(scheme) for scheme in schemes if scheme is not Scheme.INT8]
    moved = weight
    if four_bit:
        share = FOUR_BIT_SHARE * len(four_bit)
        moved = descend(weight, moment, four_bit, start=moved, frozen=frozen, limit=limit, share=share)
    if Scheme.INT8 in schemes:
        # What full precision says now is right, and close: INT8 is to say the same.
        int8 = grid_for(Scheme.INT8)
        share = INT8_SHARE - float((int8.nearest(moved) != int8.nearest(weight)).double().mean())
        moved = descend(moved, moment, [int8], start=moved, frozen=frozen, limit=limit, share=share)
    return moved
