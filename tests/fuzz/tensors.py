"""Safetensors files that are right, with tensors as no model has them; and files that are not right."""

from __future__ import annotations

import math
import struct
from random import Random
from typing import Any, Final

from quantguard.checkpoint.header import DTYPE_BITS
from tests.fuzz.chance import Members, change_bytes, change_json, encoded, parsed

_NAMES: Final = (
    *("a.weight", "model.layers.0.mlp.down_proj.weight", "lm_head.weight", "h.0.attn.c_attn.weight", "norm.weight"),
    *("weight", ".weight", "a.b.c", "a.bias", "\u202e.weight", "a\n.weight", "é.weight", " ", "a..weight", "A.WEIGHT"),
)
_TESTABLE: Final = ("F32", "F16", "BF16")
_SIZES: Final = (1, 1, 2, 3, 7, 8, 63, 64, 65, 130)
_MOST: Final = 16_384  # elements of one tensor
_PATTERNS: Final = {  # bytes that stand for zeros, NaN, infinities, subnormals, the largest, alike and opposite ones
    "F32": ("00000000", "0000c07f", "0000807f", "01000000", "ffff7f7f", "0000803f", "000080bf", "000080ff", "00008000"),
    "F16": ("0000", "007e", "007c", "0100", "ff7b", "003c", "00bc", "00fc", "0004"),
    "BF16": ("0000", "c07f", "807f", "0100", "7f7f", "803f", "80bf", "80ff", "8000"),
}
_HARMLESS: Final = (0, 3, 4, 5, 6, 8)  # patterns that are finite


def joined(header: bytes, data: bytes, length: int | None = None) -> bytes:
    declared = len(header) if length is None else length
    return declared.to_bytes(8, "little") + header + data


def _dtype(chance: Random) -> str:
    return chance.choice(_TESTABLE) if chance.randrange(5) else chance.choice(list(DTYPE_BITS))


def _shape(chance: Random) -> list[int]:
    rank = chance.choice((2, 2, 2, 2, 1, 0, 3, 5, 32))
    shape = [chance.choice(_SIZES) if rank < 10 else 1 for _ in range(rank)]
    while math.prod(shape) > _MOST:
        shape[shape.index(max(shape))] = 1
    return shape


def _values(chance: Random, dtype: str, count: int) -> bytes:
    """`count` bytes of tensor: honest-looking, of one odd value, or honest with some odd ones in them."""
    patterns = [bytes.fromhex(pattern) for pattern in _PATTERNS.get(dtype, ("00", "ff", "7f", "80", "01"))]
    if dtype not in _PATTERNS:
        return chance.randbytes(count)
    width = len(patterns[0])
    kind = chance.randrange(6)
    odd = patterns[chance.choice(_HARMLESS) if chance.randrange(3) else chance.randrange(len(patterns))]
    if kind == 0:
        return odd * (count // width)
    scale = 10.0 ** chance.randrange(-6, 4)
    floats = [chance.uniform(-scale, scale) for _ in range(min(count // width, 256))] or [scale]
    if dtype == "F16":
        raw = b"".join(struct.pack("<e", value) for value in floats)
    else:  # BF16 is the upper half of a float32
        raw = b"".join(struct.pack("<f", value)[4 - width :] for value in floats)
    data = bytearray((raw * (count // len(raw) + 1))[:count])
    if kind < 3:
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(max(count // width, 1)) * width
            data[at : at + width] = odd
    return bytes(data)


def tiled(chance: Random) -> bytes:
    """A right file of one to five tensors with odd names, types, shapes and values; in one of ten, one thing is off."""
    header, data = Members(), b""
    names = chance.sample(_NAMES, chance.randrange(1, 6))
    for name in names:
        dtype, shape = _dtype(chance), _shape(chance)
        values = _values(chance, dtype, math.prod(shape) * DTYPE_BITS[dtype] // 8)
        entry: list[tuple[str, Any]] = [
            ("dtype", dtype),
            ("shape", list[Any](shape)),
            ("data_offsets", [len(data), len(data) + len(values)]),
        ]
        header.append((name, Members(entry)))
        data += values
    if chance.randrange(10) == 0:
        change_json(chance, header)
        return joined(encoded(chance, header), data)
    chance.shuffle(header)
    return joined(encoded(Random(1), header), data)


def header_changed(chance: Random, file: bytes) -> bytes:
    """A safetensors file with its header's JSON changed and everything else set right, as an attacker would."""
    length = int.from_bytes(file[:8], "little")
    document = change_json(chance, parsed(file[8 : 8 + length]))
    header, data = encoded(chance, document), file[8 + length :]
    slip = chance.randrange(12)
    if slip == 0:
        return joined(header, data, max(0, len(header) + chance.choice((-1, 1, 8, len(data)))))
    if slip == 1:
        return joined(header, data[: chance.randrange(len(data) + 1)])
    return joined(header, data + b"\0" if slip == 2 else data)


def changed_file(chance: Random, file: bytes) -> bytes:
    """One hostile safetensors file made of `file` or of nothing."""
    kind = chance.randrange(10)
    if kind < 5:
        return header_changed(chance, file)
    return change_bytes(chance, file) if kind < 8 else tiled(chance)
