"""Tensors of a checked checkpoint, read one at a time.

A tensor is read from the byte range that its checked header gives, from a regular file opened without following links.
Little-endian machines only, which is every one that torch's CUDA and x86 or Arm builds run on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final

import torch

from quantguard.checkpoint.files import open_regular, quote, read_exactly
from quantguard.checkpoint.layout import Checkpoint, TensorEntry
from quantguard.core.errors import CheckpointError, NonFiniteWeightsError

# F4, F6_E2M3 and F6_E3M2 pack values across bytes; torch has no dtype of that many values.
TORCH_DTYPES: Final[dict[str, torch.dtype]] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
_CHUNK: Final = 4 * 1024 * 1024  # elements looked at together


def read_tensor(checkpoint: Checkpoint, entry: TensorEntry) -> torch.Tensor:
    """The tensor `entry` on the CPU, of `entry.shape` and its own dtype; it owns its memory.

    Raises:
        CheckpointError: the file is absent, unreadable or shorter than it was; torch has no such dtype; or the tensor
            does not fit into memory.
        UnsafeCheckpointError: the file is no longer a regular file.
    """
    with open_regular(checkpoint.root, entry.file) as stream:
        return _read(checkpoint, entry, stream)


def read_rows(
    checkpoint: Checkpoint, entry: TensorEntry, stream: BinaryIO, rows: Sequence[range], scratch: bytearray
) -> torch.Tensor:
    """Rows (of the first axis; steps of 1) of `entry` from its open file, in its own dtype, (rows, *rest).

    The tensor lies in `scratch`, which must be large enough, and is overwritten by the next call with it.

    Raises:
        CheckpointError: the file ends before them or cannot be read; or torch has no such dtype.
    """
    dtype = _dtype(checkpoint, entry)
    row = (entry.end - entry.begin) // entry.shape[0]  # bytes
    filled = 0
    for some in rows:
        view = memoryview(scratch)[filled : filled + row * len(some)]
        read_exactly(stream, entry.begin + row * some.start, view, root=checkpoint.root, name=entry.file)
        filled += len(view)
    return torch.frombuffer(scratch, dtype=dtype, count=filled // dtype.itemsize).view(-1, *entry.shape[1:])


def stream_tensors(
    checkpoint: Checkpoint, entries: Iterable[TensorEntry] | None = None
) -> Iterator[tuple[TensorEntry, torch.Tensor]]:
    """Yield `entries` (default: all) in their order with their tensors, holding one at a time.

    Each file stays open while consecutive entries lie in it. A caller that keeps a tensor keeps its memory: the
    loop variable of a `for` holds the last one while the next is read, so peak memory is the two largest neighbours.

    Raises:
        CheckpointError, UnsafeCheckpointError: as `read_tensor`.
    """
    stream: BinaryIO | None = None
    opened = ""
    try:
        for entry in checkpoint.tensors if entries is None else entries:
            if stream is None or opened != entry.file:
                if stream is not None:
                    stream.close()
                stream, opened = open_regular(checkpoint.root, entry.file), entry.file
            yield entry, _read(checkpoint, entry, stream)
    finally:
        if stream is not None:
            stream.close()


def _read(checkpoint: Checkpoint, entry: TensorEntry, stream: BinaryIO) -> torch.Tensor:
    dtype = _dtype(checkpoint, entry)
    try:
        data = bytearray(entry.end - entry.begin)
    except MemoryError as error:  # a hole in a file costs its author nothing
        raise CheckpointError(
            f"tensor {quote(entry.name)} takes {entry.end - entry.begin} bytes, more than there is memory",
            path=checkpoint.root / entry.file,
            remedy="run on a machine with more memory, if the model is one to have such a tensor",
        ) from error
    read_exactly(stream, entry.begin, memoryview(data), root=checkpoint.root, name=entry.file)
    if dtype is torch.bool:
        # A bool of any other byte than 0 or 1 is undefined behaviour in torch's kernels.
        return torch.frombuffer(data, dtype=torch.uint8).ne(0).reshape(entry.shape)
    return torch.frombuffer(data, dtype=dtype).reshape(entry.shape)


def _dtype(checkpoint: Checkpoint, entry: TensorEntry) -> torch.dtype:
    dtype = TORCH_DTYPES.get(entry.dtype)
    if dtype is None:
        raise CheckpointError(
            f"tensor {quote(entry.name)}: torch cannot hold {entry.dtype}",
            path=checkpoint.root / entry.file,
            remedy="export the model in float32, float16 or bfloat16",
        )
    return dtype


def first_non_finite(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The index of the first NaN or infinity of `tensor` (any shape and dtype) in row-major order, or None."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return None
    flat = tensor.detach().reshape(-1)  # (elements,)
    for start in range(0, flat.numel(), _CHUNK):
        chunk = flat[start : start + _CHUNK]
        if chunk.dtype.itemsize == 1:
            chunk = chunk.float()  # torch has no isfinite for 8-bit floats
        bad = torch.isfinite(chunk).logical_not_()
        if bad.any():
            return _unravel(start + int(bad.to(torch.uint8).argmax()), tuple(tensor.shape))
    return None


def _unravel(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for axis in range(len(shape)):
        below = math.prod(shape[axis + 1 :])
        index.append(position // below)
        position %= below
    return tuple(index)


def require_finite(entry: TensorEntry, tensor: torch.Tensor) -> None:
    """Refuse NaN and infinity: no quantizer defines what becomes of a block that holds one.

    Raises:
        NonFiniteWeightsError: naming the tensor, its file and the first such value.
    """
    index = first_non_finite(tensor)
    if index is not None:
        value = tensor[index].item()
        raise NonFiniteWeightsError(
            f"tensor {quote(entry.name)} in {quote(entry.file)} holds {value} at index {list(index)}",
            remedy="the model is broken in full precision already; export it again",
        )
