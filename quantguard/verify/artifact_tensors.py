"""One tensor of a quantized checkpoint against its vetted one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.checkpoint.files import quote
from quantguard.checkpoint.layout import Checkpoint, is_stored_transposed
from quantguard.checkpoint.tensors import TORCH_DTYPES, read_tensor, require_finite
from quantguard.core.artifact import Difference, Kind
from quantguard.core.scheme import Scheme
from quantguard.verify.artifact_claim import DTYPES, Claim
from quantguard.verify.artifact_codes import (
    Tally,
    compare_four_bit,
    compare_int8,
    compare_nested,
    compare_scales,
    four_bit,
    int8,
    is_mean,
    nested,
)
from quantguard.verify.artifact_layout import StoredFourBit, StoredInt8, StoredNested, read_four_bit, read_int8
from quantguard.verify.artifact_names import PlainTensor, QuantizedTensor

_FLOATING: Final = frozenset({"F32", "F16", "BF16"})
_INTEGERS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size: bits are compared


@dataclass(frozen=True, slots=True)
class Judged:
    differences: tuple[Difference, ...]
    values: int  # codes or values that were compared, >= 0
    cast: bool  # equal only once the vetted values are converted to another dtype, with a loss


def judge_quantized(
    vetted: Checkpoint, artifact: Checkpoint, tensor: QuantizedTensor, claim: Claim, device: str
) -> Judged:
    """Compare a quantized weight with the library's own rounding, in the vetted dtype and in that of the artefact.

    Raises:
        CheckpointError: a tensor cannot be read.
        NonFiniteWeightsError: NaN or infinity in the vetted weight.
    """
    name, source = tensor.entry.name, tensor.source
    if source.dtype not in _FLOATING or len(source.shape) != 2:
        message = f"is quantized, and the vetted tensor is {source.dtype} {list(source.shape)}, no matrix of weights"
        return Judged((Difference(Kind.LAYOUT, name, message),), 0, cast=False)
    weight = read_tensor(vetted, source)
    require_finite(source, weight)
    if is_stored_transposed(vetted, source):
        weight = weight.T.contiguous()  # (out_features, in_features)
    shape = (weight.shape[0], weight.shape[1])
    stored: StoredFourBit | StoredInt8 | tuple[str, ...]
    if claim.scheme is Scheme.INT8:
        stored = read_int8(artifact, tensor, shape)
    else:
        stored = read_four_bit(artifact, tensor, claim, shape)
    if isinstance(stored, tuple):
        return Judged(tuple(Difference(Kind.LAYOUT, name, wrong) for wrong in stored), 0, cast=False)
    as_vetted = _unlike(name, stored, weight, claim.scheme, device)
    dtype = _claimed(stored, claim)
    if not as_vetted or dtype in (None, weight.dtype):
        return Judged(as_vetted, weight.numel(), cast=False)
    as_cast = _unlike(name, stored, weight.to(dtype), claim.scheme, device)
    if _weight_of(as_cast):
        return Judged(min(as_vetted, as_cast, key=_weight_of), weight.numel(), cast=False)
    told = [difference for difference in as_vetted if difference.kind is Kind.CODES] or as_vetted
    return Judged((_cast(told[0], dtype), *as_cast), weight.numel(), cast=True)


def _claimed(stored: StoredFourBit | StoredInt8, claim: Claim) -> torch.dtype | None:
    """The dtype that the weight is said to have had when it was quantized."""
    name = stored.dtype if isinstance(stored, StoredFourBit) else claim.dtype
    return getattr(torch, name) if name in DTYPES else None


def _weight_of(differences: Iterable[Difference]) -> int:
    """Codes, scales and levels that are wrong on every device."""
    return sum(difference.count for difference in differences if difference.kind is not Kind.EDGE)


def _cast(difference: Difference, dtype: torch.dtype | None) -> Difference:
    name = str(dtype).removeprefix("torch.")
    message = f"was converted to {name} before it was quantized, which changes {difference.count} of {difference.of}"
    what = "scales" if difference.kind is Kind.SCALES else "codes"
    return Difference(
        Kind.CAST, difference.where, f"{message} {what}", difference.count, difference.of, difference.first
    )


def _unlike(
    name: str, stored: StoredFourBit | StoredInt8, weight: Tensor, scheme: Scheme, device: str
) -> tuple[Difference, ...]:
    """What differs from the library's rounding of `weight`, (out_features, in_features), in its dtype."""
    if isinstance(stored, StoredInt8):
        codes, absmax = int8(weight.to(device))
        found = [_scales(name, compare_scales(stored.absmax, absmax), absmax, "rows")]
        found += _codes(name, compare_int8(stored.codes, (codes, absmax), weight), weight)
        return tuple(difference for difference in found if difference is not None)
    truth = four_bit(weight.to(device), scheme)
    found = [_levels(name, "quant_map", stored.levels, truth.levels)]
    if stored.nested is None:
        found.append(_scales(name, compare_scales(stored.absmax, truth.absmax), truth.absmax, "blocks"))
    else:
        found += _nested(name, stored.absmax, stored.nested, truth.absmax, device)
    found += _codes(name, compare_four_bit(stored.packed, truth, weight), weight)
    return tuple(difference for difference in found if difference is not None)


def _nested(name: str, codes: Tensor, stored: StoredNested, absmax: Tensor, device: str) -> Iterable[Difference | None]:
    if not is_mean(stored.offset, absmax):
        message = "nested_offset is not the mean of the absmax of its blocks"
        yield Difference(Kind.SCALES, name, message, absmax.numel(), absmax.numel(), (0,))
        return
    truth = nested(absmax, stored.offset, device)
    yield _levels(name, "nested_quant_map", stored.levels, truth.levels)
    yield _scales(name, compare_scales(stored.absmax, truth.absmax), truth.absmax, "groups of blocks")
    tally = compare_nested(codes, truth, absmax, stored.offset)
    yield _scales(name, Tally(tally.wrong, 0, tally.first), absmax, "blocks")
    if tally.edge:
        yield _edge(name, tally, absmax.numel(), (tally.first,), "quantized scales")


def _levels(name: str, part: str, stored: Tensor, truth: Tensor) -> Difference | None:
    tally = compare_scales(stored, truth)
    if not tally.wrong:
        return None
    message = f"{part} is not bitsandbytes' own: {tally.wrong} of {truth.numel()} levels differ"
    return Difference(Kind.LEVELS, name, message, tally.wrong, truth.numel(), (tally.first,))


def _scales(name: str, tally: Tally, truth: Tensor, of_what: str) -> Difference | None:
    if not tally.wrong:
        return None
    message = f"the scales of {tally.wrong} of {truth.numel()} {of_what} are not those of the vetted weights"
    return Difference(Kind.SCALES, name, message, tally.wrong, truth.numel(), (tally.first,))


def _codes(name: str, tally: Tally, weight: Tensor) -> Iterable[Difference]:
    count, first = weight.numel(), divmod(tally.first, weight.shape[1])
    if tally.wrong:
        message = f"{tally.wrong} of {count} codes are not the nearest rounding of the vetted weights"
        yield Difference(Kind.CODES, name, message, tally.wrong, count, first)
    elif tally.edge:
        yield _edge(name, tally, count, first, "codes")


def _edge(name: str, tally: Tally, count: int, first: tuple[int, ...], what: str) -> Difference:
    message = f"{tally.edge} of {count} {what} are on a boundary, where kernels of other devices round the other way"
    return Difference(Kind.EDGE, name, message, tally.edge, count, first)


def judge_plain(
    vetted: Checkpoint, artifact: Checkpoint, tensor: PlainTensor, claim: Claim, *, vetted_dtype: str
) -> Judged:
    """Compare a tensor that is not quantized bit by bit, as it is or converted to the dtype it is stored in.

    A loader converts it to the dtype of the model, too: where `vetted_dtype`, which the vetted configuration names, is
    the artefact's, it does so with both models alike.

    Raises:
        CheckpointError: a tensor cannot be read.
    """
    entry, source = tensor.entry, tensor.source
    allowed = {source.dtype, *(("F32", _SHORT[claim.dtype]) if claim.dtype and source.dtype in _FLOATING else ())}
    if entry.shape != source.shape or entry.dtype not in allowed:
        message = f"is {entry.dtype} {list(entry.shape)}, and the vetted {quote(source.name)} is {source.dtype}"
        return Judged((Difference(Kind.LAYOUT, entry.name, f"{message} {list(source.shape)}"),), 0, cast=False)
    stored, original = read_tensor(artifact, entry), read_tensor(vetted, source)
    expected = original.to(TORCH_DTYPES[entry.dtype])
    if wrong := _first_unequal(stored, expected):
        count, first = wrong
        message = f"{count} of {entry.elements} values are not the vetted ones"
        told = Difference(Kind.VALUES, entry.name, message, count, entry.elements, first)
        return Judged((told,), entry.elements, cast=False)
    loaded = expected.to(getattr(torch, claim.dtype)) if claim.dtype and source.dtype in _FLOATING else expected
    lost = _first_unequal(loaded.to(original.dtype), original)
    if lost is None or (claim.dtype and claim.dtype == vetted_dtype):
        return Judged((), entry.elements, cast=False)
    message = f"is converted from {source.dtype} to {claim.dtype}, which changes {lost[0]} of {entry.elements} values"
    told = Difference(Kind.CAST, entry.name, message, lost[0], entry.elements, lost[1])
    return Judged((told,), entry.elements, cast=True)


_SHORT: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def _first_unequal(one: Tensor, other: Tensor) -> tuple[int, tuple[int, ...]] | None:
    """How many values of two tensors of one shape and dtype differ in any bit, and the first one's index."""
    words = _INTEGERS[one.dtype.itemsize]
    unequal = one.reshape(-1).view(words) != other.reshape(-1).view(words)
    count = int(unequal.sum())
    if not count:
        return None
    flat = unequal.to(torch.uint8).argmax()
    return count, tuple(int(axis) for axis in torch.unravel_index(flat, one.shape)) if one.dim() else ()
