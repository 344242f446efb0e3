"""Every weight of a tensor on one fine axis per scale: all that tests on NF4, FP4 and INT8 need, counted in one pass.

NF4 and FP4 share their blocks and so their axis, weight / block absmax; INT8's is weight / row absmax. Each axis has
FINE equal bins over [-1, 1]; on the row's, a level of INT8 is LEVEL bins wide. The cells of a grid are cut out of the
bins afterwards (`cells`), so that the file is read once whatever the number of grids.

A 16-bit weight stands for all the reals that round to it. It is therefore put back at a random one of them (dither):
a smooth density stays smooth, where the stored values themselves would be a comb, and what an attacker piled up stays
piled up to the resolution that the file has. The noise is the same in every run. Kernel file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.grids.block import BLOCK_SIZE

HALF: Final = 1 << 15
FINE: Final = 2 * HALF  # bins over [-1, 1]
LEVEL: Final = 256  # bins of the row's axis in one step of INT8
PIECE: Final = 1 << 19  # weights looked at at once: their copies fit a core's share of the cache

_STEPS: Final = 127 * LEVEL  # bins from 0 to the absmax of a row


@dataclass(frozen=True, slots=True)
class Lattice:
    """How coarse the stored values are: they are float32 with the last `bits` bits zero."""

    bits: int  # 0: float32; 13: float16; 16: bfloat16; float16's denormals count as float16


@dataclass(frozen=True, slots=True)
class Counts:
    """Weights in each fine bin, int64, shape (FINE + 1,); what is out of range or no number is in the first bin."""

    block: Tensor  # by weight / absmax of its 64 weights
    row: Tensor  # by weight / absmax of its row

    def cpu(self) -> Counts:
        return Counts(self.block.cpu(), self.row.cpu())

    def add_(self, other: Counts) -> Counts:
        """These with those of `other` added, in place: half a million sums want no memory of their own."""
        self.block.add_(other.block)
        self.row.add_(other.row)
        return self


def lattice_of(sample: Tensor) -> Lattice:
    """The coarsest lattice that holds all of `sample` (any shape), whatever its dtype can hold."""
    stored = sample.float().contiguous().view(torch.int32)
    fits = [bits for bits in (16, 13) if not bool((stored & ((1 << bits) - 1)).any())]
    return Lattice(fits[0] if fits else 0)


def dither_noise(lattice: Lattice, device: str | torch.device = "cpu") -> Tensor | None:
    """Integers to add to the bits of float32 values so that each is spread over what rounds to it: int32, (PIECE,)."""
    if not lattice.bits:
        return None
    reach = 1 << (lattice.bits - 1)
    generator = torch.Generator().manual_seed(lattice.bits)
    return torch.randint(-reach, reach, (PIECE,), generator=generator, dtype=torch.int32).to(device)


def count(piece: Tensor, noise: Tensor | None, *, spread: bool = False) -> tuple[Counts, bool]:
    """Counts of whole rows, (rows, columns), and whether all of them are finite.

    Float32, float16 or bfloat16. Where rows are no multiple of 64 long, blocks run on from row to row: a tensor must
    then be cut where a block begins (`rows_at_once`). A short last block counts as a block of its own.

    With `spread`, weights that lie on the levels of INT8 are taken as any of the reals that INT8 rounds to them, like
    values of a coarse dtype. Then only the block's axis has a meaning.
    """
    rows, columns = piece.shape
    short = -piece.numel() % BLOCK_SIZE
    flat = torch.nn.functional.pad(piece.reshape(-1), (0, short)) if short else piece.reshape(-1)
    absmax = flat.view(-1, BLOCK_SIZE).abs().amax(dim=1).float()  # (blocks,)
    values = dithered(flat, noise)
    # LLM.int8 takes the maximum after a cast to float16, which keeps the order: the cast of the maximum is the same.
    whole = columns % BLOCK_SIZE == 0
    row_absmax = absmax.view(rows, -1).amax(dim=1) if whole else piece.abs().amax(dim=1)  # (rows,)
    row_absmax = row_absmax.half().float()[:, None]
    if spread:
        values = _spread(values, row_absmax / 127, columns)
    by_block = _binned(values.view(-1, BLOCK_SIZE), HALF / absmax[:, None])
    by_row = _binned(values[: piece.numel()].view(rows, columns), _STEPS / row_absmax)
    return Counts(by_block, by_row), bool(torch.isfinite(absmax.sum()))


def rows_at_once(columns: int) -> int:
    """Rows of a piece: PIECE weights or fewer, and whole blocks."""
    aligned = rows_of_blocks(columns)
    return max(1, PIECE // (columns * aligned)) * aligned


def rows_of_blocks(columns: int) -> int:
    """The fewest rows that are whole blocks."""
    return BLOCK_SIZE // math.gcd(BLOCK_SIZE, columns)


def dithered(flat: Tensor, noise: Tensor | None) -> Tensor:
    """`flat` (n,) as float32, each value spread over what rounds to it.

    Zero has no such interval and becomes no number at all: `_binned` leaves it out.
    """
    if noise is None:
        return flat.float()
    if flat.dtype is torch.bfloat16:
        stored = flat.view(torch.int16).to(torch.int32).bitwise_left_shift_(16)
    else:
        stored = flat.float().view(torch.int32)
    if stored.numel() > noise.numel():  # a few rows that are longer than a piece
        noise = noise.repeat(-(-stored.numel() // noise.numel()))
    # float32 values that hold 16-bit ones are the caller's own memory
    return stored.add(noise[: stored.numel()]).view(torch.float32)


def _spread(values: Tensor, step: Tensor, columns: int) -> Tensor:
    """`values` (n,), rows of `columns` and padding, each moved within its row's `step`, (rows, 1); zeros stay."""
    generator = torch.Generator(values.device).manual_seed(0)
    noise = torch.rand(values.shape, generator=generator, device=values.device) - 0.5
    steps = torch.nn.functional.pad(step.expand(-1, columns).reshape(-1), (0, values.numel() - step.numel() * columns))
    return torch.where(values == 0, values, values + noise * steps)


def _binned(values: Tensor, scale: Tensor) -> Tensor:
    """How many of values x scale lie in each fine bin: int64, (FINE + 1,)."""
    index = (values * scale).add_(HALF).to(torch.int32).clamp_(0, FINE)
    return torch.bincount(index.view(-1), minlength=FINE + 1)
