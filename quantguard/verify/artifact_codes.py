"""Codes and scales against what bitsandbytes itself makes of the vetted weight. Tensors in, counts out.

Kernels of different devices round alike but for float32's own error: bitsandbytes' CUDA kernel has FP4's boundaries
with six or seven digits (0.583333 for 7/12) and other reciprocals. A code is *on the edge* where the weight lies that
close to the boundary between the code's level and the nearest one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.core.scheme import Scheme

BLOCK_SIZE: Final = 64  # what transformers' BitsAndBytesConfig uses
NESTED_BLOCK_SIZE: Final = 256  # bitsandbytes 0.50, functional.quantize_4bit
EDGE: Final = 2.0**-20  # of the scale; CUDA's FP4 boundaries are off by 3.1e-7, a float32 product by 1.8e-7
# bitsandbytes' CPU kernel looks nested codes up in a table of 65,536 steps over [-1, 1]: off by half a step either way.
TABLE: Final = 2.0 / 65535
_CHUNK: Final = 4 * 1024 * 1024  # weights looked at together


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of some values differ."""

    wrong: int  # >= 0
    edge: int  # >= 0; not counted in `wrong`
    first: int  # flat index of the first wrong one, or else of the first on the edge; -1 where there is neither


@dataclass(frozen=True, slots=True)
class FourBit:
    """A weight in four bits, as bitsandbytes holds it."""

    packed: Tensor  # (bytes,) uint8, two codes a byte, the first in the high half
    absmax: Tensor  # (blocks,) float32
    levels: Tensor  # (16,) float32, by code


@dataclass(frozen=True, slots=True)
class Nested:
    """The absmax of a FourBit, quantized too."""

    codes: Tensor  # (blocks,) uint8
    absmax: Tensor  # (ceil(blocks / 256),) float32
    levels: Tensor  # (256,) float32, ascending


def four_bit(weight: Tensor, scheme: Scheme) -> FourBit:
    """What the library makes of `weight`, (out_features, in_features), in the dtype that it is given in.

    Source: bitsandbytes 0.50, nn.Params4bit._quantize.
    """
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=BLOCK_SIZE, quant_type=scheme.value)
    return FourBit(packed.reshape(-1).cpu(), state.absmax.cpu(), state.code.cpu())


def nested(absmax: Tensor, offset: float, device: str) -> Nested:
    """What the library makes of `absmax`, (blocks,), once `offset` is subtracted.

    Source: bitsandbytes 0.50, functional.quantize_4bit with compress_statistics.
    """
    from bitsandbytes.functional import quantize_blockwise

    moved = absmax.to(device) - torch.tensor(offset, dtype=torch.float32, device=device)
    codes, state = quantize_blockwise(moved, blocksize=NESTED_BLOCK_SIZE)
    return Nested(codes.cpu(), state.absmax.cpu(), state.code.cpu())


def int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """What the library makes of `weight`: codes (out_features, in_features) int8, row absmax (out_features,) float32.

    Source: bitsandbytes 0.50, nn.Int8Params._quantize.
    """
    from bitsandbytes.functional import int8_vectorwise_quant

    codes, absmax, _ = int8_vectorwise_quant(weight.contiguous().to(torch.float16))
    return codes.cpu(), absmax.cpu()


def is_mean(offset: float, absmax: Tensor) -> bool:
    """Whether `offset` is a float32 and the mean of `absmax` (blocks,), but for the order in which it was summed.

    That order depends on device and threads: of 70,001 values the last bit differs between one thread and two.
    """
    mean = float(absmax.double().mean())
    return offset == float(torch.tensor(offset, dtype=torch.float32)) and abs(offset - mean) <= EDGE * abs(mean)


def compare_four_bit(stored: Tensor, truth: FourBit, weight: Tensor) -> Tally:
    """Codes packed in `stored`, (bytes,) uint8, against `truth`; `weight` is (out_features, in_features), on the CPU.

    Codes of one level are one: FP4 has two zeros, and which of them is used depends on the device. Where the absmax of
    a block is zero every level is.
    """
    if torch.equal(stored, truth.packed):
        return Tally(0, 0, -1)
    return _total(_four_bit_pieces(stored, truth, weight.reshape(-1)))


def _four_bit_pieces(stored: Tensor, truth: FourBit, flat: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, flat.numel(), _CHUNK):
        piece = slice(start // 2, (start + _CHUNK) // 2)
        ours, theirs = _unpacked(truth.packed[piece]), _unpacked(stored[piece])
        at = (ours != theirs).nonzero().reshape(-1)
        at = at[at + start < flat.numel()]  # half of the last byte may be padding
        scale = truth.absmax[(at + start) // BLOCK_SIZE].double()
        levels = truth.levels.double()
        near, chosen = levels[ours[at].long()], levels[theirs[at].long()]
        yield at + start, _judged(flat[at + start].double(), scale, near, chosen)


def _unpacked(packed: Tensor) -> Tensor:
    return torch.stack((packed >> 4, packed & 15), dim=1).reshape(-1)  # (codes,)


def compare_int8(stored: Tensor, truth: tuple[Tensor, Tensor], weight: Tensor) -> Tally:
    """`stored` codes, (out_features, in_features) int8, against `truth`, which is what `int8` returned."""
    codes, absmax = truth
    if torch.equal(stored, codes):
        return Tally(0, 0, -1)
    return _total(_int8_pieces(stored.reshape(-1), codes.reshape(-1), absmax, weight.half()))


def _int8_pieces(stored: Tensor, codes: Tensor, absmax: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    flat, columns = weight.reshape(-1), weight.shape[1]
    for start in range(0, flat.numel(), _CHUNK):
        piece = slice(start, start + _CHUNK)
        at = (stored[piece] != codes[piece]).nonzero().reshape(-1) + start
        near, chosen = codes[at].double() / 127, stored[at].double() / 127
        yield at, _judged(flat[at].double(), absmax[at // columns].double(), near, chosen)


def _judged(weight: Tensor, scale: Tensor, near: Tensor, chosen: Tensor) -> Tensor:
    """Of codes that differ, (codes,) each: 0 the same level after all, 1 on the edge, 2 wrong; uint8."""
    same = (near == chosen) | (scale == 0)
    edge = (weight / scale - (near + chosen) / 2).abs() <= EDGE  # NaN is not on it
    return torch.where(same, 0, torch.where(edge, 1, 2)).to(torch.uint8)


def _total(pieces: Iterator[tuple[Tensor, Tensor]]) -> Tally:
    wrong, edge, first = 0, 0, {1: -1, 2: -1}
    for at, judged in pieces:
        wrong += int((judged == 2).sum())
        edge += int((judged == 1).sum())
        for mark in (1, 2):
            found = at[judged == mark]
            if first[mark] < 0 and found.numel():
                first[mark] = int(found[0])
    return Tally(wrong, edge, first[2] if wrong else first[1])


def compare_scales(stored: Tensor, truth: Tensor) -> Tally:
    """Scales of any shape against those of the library, value by value; NaN is wrong."""
    wrong = (stored != truth).reshape(-1).nonzero().reshape(-1)
    return Tally(wrong.numel(), 0, int(wrong[0]) if wrong.numel() else -1)


def compare_nested(stored: Tensor, truth: Nested, absmax: Tensor, offset: float) -> Tally:
    """Codes of the scales, (blocks,) uint8, against `truth`.

    Right is what the library computes here, and the nearest of the 256 levels: its CPU kernel is not always that near.
    On the edge is what that kernel's table may give.

    Args:
        absmax: (blocks,) float32, what is quantized.
    """
    at = (stored != truth.codes).nonzero().reshape(-1)
    if not at.numel():
        return Tally(0, 0, -1)
    moved = (absmax[at] - torch.tensor(offset, dtype=torch.float32)).double()
    scale = truth.absmax[at // NESTED_BLOCK_SIZE].double()
    levels = truth.levels.double()
    x = moved / scale
    # The two levels around x; the levels ascend.
    above = torch.searchsorted(levels, x.nan_to_num()).clamp(1, levels.numel() - 1)
    least = torch.minimum((x - levels[above - 1]).abs(), (x - levels[above]).abs())
    excess = (x - levels[stored[at].long()]).abs() - least
    judged = torch.where((excess <= EDGE) | (scale == 0), 0, torch.where(excess <= TABLE, 1, 2))
    return _total(iter([(at, judged)]))
