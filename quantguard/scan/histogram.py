"""Every weight of a tensor on one fine axis per scale: all that the tests on NF4, FP4 and INT8 need, counted in one pass.

NF4 and FP4 share their blocks and so their axis, u = weight / block absmax; INT8's is weight / row absmax. Each axis has
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
PIECE: Final = 1 << 18  # weights looked at at once: their copies fit a core's share of the cache

_STEPS: Final = 127 * LEVEL  # bins from 0 to the absmax of a row


@dataclass(frozen=True, slots=True)
class Lattice:
    """How coarse the stored values are: they are float32 with the last `bits` bits zero."""

    bits: int  # 0: float32; 13: float16; 16: bfloat16


@dataclass(frozen=True, slots=True)
class Counts:
    """Weights in each fine bin, int64, shape (FINE + 1,); what is out of range or no number is in the first bin."""

    block: Tensor  # by weight / absmax of its 64 weights
    row: Tensor  # by weight / absmax of its row

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.block + other.block, self.row + other.row)


def lattice_of(sample: Tensor) -> Lattice:
    """The coarsest lattice that holds all of `sample` (any shape): a float32 file may hold 16-bit values."""
    if sample.dtype is torch.bfloat16:
        return Lattice(16)
    if sample.dtype is torch.float16:
        return Lattice(13)
    stored = sample.contiguous().view(torch.int32)
    used = [bits for bits in (16, 13) if not bool((stored & ((1 << bits) - 1)).any())]
    return Lattice(used[0] if used else 0)


def dither_noise(lattice: Lattice, device: str | torch.device = "cpu") -> Tensor | None:
    """Integers to add to the bits of float32 values so that each is spread over what rounds to it: int32, (PIECE,)."""
    if not lattice.bits:
        return None
    reach = 1 << (lattice.bits - 1)
    generator = torch.Generator().manual_seed(lattice.bits)
    return torch.randint(-reach, reach, (PIECE,), generator=generator, dtype=torch.int32).to(device)


def count(piece: Tensor, noise: Tensor | None) -> tuple[Counts, bool]:
    """Counts of whole rows, (rows, columns), and whether all of them are finite.

    Float32, float16 or bfloat16. Where rows are no multiple of 64 long, blocks run on from row to row: a tensor must
    then be cut where a block begins (`rows_at_once`). A short last block counts as a block of its own.
    """
    rows, columns = piece.shape
    short = -piece.numel() % BLOCK_SIZE
    flat = torch.nn.functional.pad(piece.reshape(-1), (0, short)) if short else piece.reshape(-1)
    absmax = flat.view(-1, BLOCK_SIZE).abs().amax(dim=1).float()  # (blocks,)
    values = _dithered(flat, noise)
    by_block = _binned(values.view(-1, BLOCK_SIZE), HALF / absmax[:, None])
    # LLM.int8 takes the maximum after a cast to float16, which keeps the order: the cast of the maximum is the same.
    whole = columns % BLOCK_SIZE == 0
    row_absmax = absmax.view(rows, -1).amax(dim=1) if whole else piece.abs().amax(dim=1)  # (rows,)
    scale = _STEPS / row_absmax.half().float()[:, None]
    by_row = _binned(values[: piece.numel()].view(rows, columns), scale)
    return Counts(by_block, by_row), bool(torch.isfinite(absmax.sum()))


def rows_at_once(columns: int) -> int:
    """Rows of a piece: PIECE weights or fewer, and whole blocks."""
    aligned = BLOCK_SIZE // math.gcd(BLOCK_SIZE, columns)
    return max(1, PIECE // (columns * aligned)) * aligned


def _dithered(flat: Tensor, noise: Tensor | None) -> Tensor:
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


def _binned(values: Tensor, scale: Tensor) -> Tensor:
    """How many of values x scale lie in each fine bin: int64, (FINE + 1,)."""
    index = (values * scale).add_(HALF).to(torch.int32).clamp_(0, FINE)
    return torch.bincount(index.view(-1), minlength=FINE + 1)
