"""What of a checkpoint is read, in which pieces: all of it, or a sample of the rows of every linear weight."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from quantguard.checkpoint.layout import Checkpoint, TensorEntry, is_stored_transposed, linear_weights
from quantguard.scan.histogram import PIECE, rows_at_once, rows_of_blocks

QUICK_SHARE: Final = 128  # one row in so many
QUICK_LEAST: Final = 1 << 15  # weights of each tensor, or all that it has
SAMPLE: Final = 1 << 15  # weights whose positions on the grids of other quantizers are looked at
QUICK_SAMPLE: Final = 1 << 13
_SEGMENT: Final = 1024  # weights of a row that are sampled together: four super-blocks of a k-quant
_FLOATING: Final = frozenset({"F32", "F16", "BF16", "F64", "C64", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})


class Effort(Enum):
    FULL = "full"
    QUICK = "quick"


Piece = tuple[range, ...]  # rows that are counted at once, whole blocks in each range, in order


@dataclass(frozen=True, slots=True)
class Planned:
    """One tensor and what is read of it."""

    entry: TensorEntry  # that of a tensor that is no linear weight is flattened
    linear: bool
    transposed: bool  # stored (in, out): read whole and cut the other way
    pieces: tuple[Piece, ...]
    segments: tuple[tuple[int, int], ...]  # (row, first column) of the sample, as stored
    width: int  # of a segment
    formats: bool = True  # whether the sample is also put on the grids of other quantizers

    @property
    def weights(self) -> int:
        """That are counted."""
        return self.rows * (self.entry.elements // self.entry.shape[0])

    @property
    def rows(self) -> int:
        return sum(len(rows) for piece in self.pieces for rows in piece)

    @property
    def size(self) -> int:
        """Bytes that are read of it."""
        whole = self.entry.end - self.entry.begin
        return whole if self.transposed else whole * self.rows // self.entry.shape[0]


def planned(checkpoint: Checkpoint, effort: Effort, seed: int) -> tuple[Planned, ...]:
    """Every tensor in the order of the files; a quick scan leaves out what is no linear weight.

    Rows and segments are drawn from `seed`: an attacker who knew them would prepare the others.
    """
    drawn = random.Random(seed)  # noqa: S311  (the seed is the secret, not the generator)
    linear = frozenset(entry.name for entry in linear_weights(checkpoint))
    plan = []
    for entry in checkpoint.tensors:
        if entry.name in linear:
            plan.append(_linear(checkpoint, entry, effort, drawn))
        elif effort is Effort.FULL and entry.dtype in _FLOATING:
            flat = dataclasses.replace(entry, shape=(entry.elements,))
            plan.append(Planned(flat, False, False, _pieces(entry.elements, PIECE), (), 0))
    return tuple(plan)


def _linear(checkpoint: Checkpoint, entry: TensorEntry, effort: Effort, drawn: random.Random) -> Planned:
    transposed = is_stored_transposed(checkpoint, entry)
    rows, columns = entry.shape
    several = rows_at_once(columns)
    pieces = _pieces(rows, several)
    quick = effort is Effort.QUICK
    if quick and not transposed:
        pieces = _drawn_rows(rows, columns, drawn)
    along = rows if transposed else columns  # of a row of the quantizer
    width = min(along, _SEGMENT) if along < _SEGMENT or along % 256 == 0 else along
    segments = _segments(along, columns if transposed else rows, width, QUICK_SAMPLE if quick else SAMPLE, drawn)
    if transposed:
        segments = tuple((column, row) for row, column in segments)
    return Planned(entry, True, transposed, pieces, segments, width, formats=not quick)


def _pieces(rows: int, several: int) -> tuple[Piece, ...]:
    return tuple((range(start, min(start + several, rows)),) for start in range(0, rows, several))


def _drawn_rows(rows: int, columns: int, drawn: random.Random) -> tuple[Piece, ...]:
    """Some of the rows, in order, each with whole blocks."""
    block = rows_of_blocks(columns)
    groups = -(-rows // block)
    wanted = max(-(-groups // QUICK_SHARE), -(-QUICK_LEAST // (columns * block)))
    chosen = sorted(drawn.sample(range(groups), min(wanted, groups)))
    ranges = [range(group * block, min((group + 1) * block, rows)) for group in chosen]
    together = max(1, PIECE // (columns * block))
    return tuple(tuple(ranges[start : start + together]) for start in range(0, len(ranges), together))


def _segments(columns: int, rows: int, width: int, wanted: int, drawn: random.Random) -> tuple[tuple[int, int], ...]:
    across = columns // width
    count = min(rows * across, max(1, wanted // width))
    places = sorted(drawn.sample(range(rows * across), count))
    return tuple((place // across, place % across * width) for place in places)


def shares(plan: Sequence[Planned], processes: int) -> list[list[Planned]]:
    """The tensors of whole files for each process, of about as many bytes."""
    files: dict[str, list[Planned]] = {}
    for one in plan:
        files.setdefault(one.entry.file, []).append(one)
    parts: list[list[Planned]] = [[] for _ in range(min(processes, len(files)))]
    for file in sorted(files.values(), key=lambda tensors: -sum(t.size for t in tensors)):
        min(parts, key=lambda part: sum(t.size for t in part)).extend(file)
    return parts
