"""What lies beside the codes of a quantized weight, read once its header says that it is of the right kind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.checkpoint.files import quote
from quantguard.checkpoint.layout import Checkpoint, TensorEntry
from quantguard.checkpoint.tensors import read_tensor
from quantguard.verify.artifact_claim import MAX_STATE, Claim, State, parse_state
from quantguard.verify.artifact_codes import BLOCK_SIZE, NESTED_BLOCK_SIZE
from quantguard.verify.artifact_names import PACKED_STATE, QuantizedTensor

_BYTES: Final = {"U8": 1, "I8": 1, "F16": 2, "BF16": 2, "F32": 4}  # of what packed codes may be stored as


@dataclass(frozen=True, slots=True)
class StoredFourBit:
    packed: Tensor  # (bytes,) uint8
    absmax: Tensor  # (blocks,) float32, or uint8 where it is quantized too
    levels: Tensor  # (16,) float32
    dtype: str  # of the weight before it was quantized
    nested: StoredNested | None


@dataclass(frozen=True, slots=True)
class StoredNested:
    absmax: Tensor  # (ceil(blocks / 256),) float32
    levels: Tensor  # (256,) float32
    offset: float  # finite


@dataclass(frozen=True, slots=True)
class StoredInt8:
    codes: Tensor  # (out_features, in_features) int8
    absmax: Tensor  # (out_features,) float32


def read_four_bit(
    artifact: Checkpoint, tensor: QuantizedTensor, claim: Claim, shape: tuple[int, int]
) -> StoredFourBit | tuple[str, ...]:
    """The parts of a 4-bit weight of `shape` (out_features, in_features), or what is wrong with them.

    Raises:
        CheckpointError: a tensor cannot be read.
    """
    blocks = math.ceil(math.prod(shape) / BLOCK_SIZE)
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {"quant_map": ("F32", (16,)), "absmax": ("F32", (blocks,))}
    if claim.nested:
        groups = math.ceil(blocks / NESTED_BLOCK_SIZE)
        wanted |= {
            "absmax": ("U8", (blocks,)),
            "nested_quant_map": ("F32", (256,)),
            "nested_absmax": ("F32", (groups,)),
        }
    packed = math.ceil(math.prod(shape) / 2) // _BYTES[claim.storage]
    wrong = list(_unlike(tensor.entry, claim.storage, (packed, 1)))
    part = PACKED_STATE + claim.scheme.value
    wrong += _wrong_parts(tensor, {**wanted, part: ("U8", None)})
    if wrong:
        return tuple(wrong)
    state = _state(artifact, tensor.parts[part])
    if isinstance(state, str):
        return (state,)
    if contradictions := tuple(_contradictions(state, claim, shape)):
        return contradictions
    read = {name: read_tensor(artifact, tensor.parts[name]) for name in wanted}
    beside = None
    if state.nested is not None:
        beside = StoredNested(read["nested_absmax"], read["nested_quant_map"], state.nested.offset)
    codes = read_tensor(artifact, tensor.entry).reshape(-1).view(torch.uint8)  # (bytes,)
    return StoredFourBit(codes, read["absmax"], read["quant_map"], state.dtype, beside)


def _wrong_parts(tensor: QuantizedTensor, wanted: dict[str, tuple[str, tuple[int, ...] | None]]) -> Iterator[str]:
    """`wanted`: part -> dtype and shape; no shape: any."""
    for part, (dtype, shape) in wanted.items():
        if part not in tensor.parts:
            yield f"{part} is not beside it"
        elif shape is not None or tensor.parts[part].dtype != dtype:
            yield from _unlike(tensor.parts[part], dtype, shape)
    for part in tensor.parts.keys() - wanted.keys():
        yield f"{part} lies beside it, which its quantization_config does not call for"


def _unlike(entry: TensorEntry, dtype: str, shape: tuple[int, ...] | None) -> Iterator[str]:
    if entry.dtype != dtype or (shape is not None and entry.shape != shape):
        should = f"{dtype} of any shape" if shape is None else f"{dtype} {list(shape)}"
        yield f"{quote(entry.name)} is {entry.dtype} {list(entry.shape)} and should be {should}"


def _state(artifact: Checkpoint, entry: TensorEntry) -> State | str:
    if entry.elements > MAX_STATE:
        return f"its quantization state has {entry.elements} bytes; at most {MAX_STATE} are read"
    try:
        return parse_state(bytes(read_tensor(artifact, entry).reshape(-1).tolist()))
    except ValueError as error:
        return str(error)


def _contradictions(state: State, claim: Claim, shape: tuple[int, int]) -> Iterator[str]:
    """Where a state is not that of stock bitsandbytes for the vetted weight, loaded by transformers as claimed."""
    expected: list[tuple[str, object, object]] = [
        ("quant_type", state.quant_type, claim.scheme.value),
        ("blocksize", state.block_size, BLOCK_SIZE),
        ("shape", state.shape, shape),
        ("double quantization", state.nested is not None, claim.nested),
    ]
    if claim.dtype:
        expected.append(("dtype", state.dtype, claim.dtype))
    if state.nested is not None:
        expected.append(("nested_blocksize", state.nested.block_size, NESTED_BLOCK_SIZE))
        expected.append(("nested_dtype", state.nested.dtype, "float32"))
    for name, found, should in expected:
        if found != should:
            yield f"{name} in its quantization state is {_shown(found)} and should be {_shown(should)}"


def _shown(value: object) -> str:
    return quote(value, 40) if isinstance(value, str) else str(value)[:80]


def read_int8(artifact: Checkpoint, tensor: QuantizedTensor, shape: tuple[int, int]) -> StoredInt8 | tuple[str, ...]:
    """The parts of an INT8 weight of `shape` (out_features, in_features), or what is wrong with them.

    Raises:
        CheckpointError: a tensor cannot be read.
    """
    wrong = list(_unlike(tensor.entry, "I8", shape))
    wrong += _wrong_parts(tensor, {"SCB": ("F32", shape[:1]), "weight_format": ("U8", ())})
    if wrong:
        return tuple(wrong)
    if int(read_tensor(artifact, tensor.parts["weight_format"])) != 0:
        return ("weight_format is not 0, which stands for rows",)
    return StoredInt8(read_tensor(artifact, tensor.entry), read_tensor(artifact, tensor.parts["SCB"]))
