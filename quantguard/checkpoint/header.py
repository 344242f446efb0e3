"""The header of a safetensors file, believed only where the file bears it out.

Format: an unsigned 64-bit little-endian length, that many bytes of UTF-8 JSON, then the tensors' bytes. The rules are
those of the safetensors library (its `SafeTensors::read_metadata` and `Metadata::validate`) and stricter where a
model never needs the freedom: no key twice, no unknown key in a tensor's entry, no tensor without elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from quantguard.checkpoint.files import distinct, open_regular, parse_json, quote, read_exactly, size_of
from quantguard.core.errors import HeaderError

MAX_HEADER: Final = 100_000_000  # bytes of JSON; the safetensors library's own limit
MAX_TENSORS: Final = 100_000  # per file
MAX_RANK: Final = 32
MAX_NAME: Final = 1024  # characters
_MAX_ELEMENTS: Final = 2**63 - 1
_PREFIX: Final = 8  # bytes of the length field
# JSON costs memory by its values, not by its bytes. An entry holds under 20 of these marks and its rank in commas.
_MAX_MARKS: Final = 40 * MAX_TENSORS

DTYPE_BITS: Final[dict[str, int]] = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "U16": 16,
    "I16": 16,
    "U32": 32,
    "I32": 32,
    "U64": 64,
    "I64": 64,
    "F16": 16,
    "BF16": 16,
    "F32": 32,
    "F64": 64,
    "C64": 64,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}

_REMEDY: Final = "the file is damaged or made to mislead; fetch it again or export it again with safetensors"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    name: str  # attacker-controlled text
    dtype: str  # a key of DTYPE_BITS
    shape: tuple[int, ...]  # each >= 1; () is a scalar
    file: str  # plain file name in the model directory
    begin: int  # absolute offset of its first byte in the file
    end: int  # absolute offset after its last byte

    @property
    def elements(self) -> int:
        """Number of values, >= 1."""
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file whose header has been believed."""

    file: str  # plain file name in the model directory
    data_begin: int  # bytes before the first tensor: length field and header
    size: int  # bytes of the whole file
    tensors: tuple[TensorEntry, ...]  # by position in the file, without gap or overlap, covering it to its end


def read_shard(root: Path, name: str) -> Shard:
    """Read and check the header of the safetensors file `name` in `root`; the tensors themselves are not read.

    Raises:
        HeaderError: the header is truncated, absurd, or disagrees with itself or with the size of the file.
        UnsafeCheckpointError: not a regular file.
        CheckpointError: absent or unreadable.
    """
    path = root / name
    with open_regular(root, name) as stream:
        size = size_of(stream)
        if size < _PREFIX:
            _refuse(path, f"has {size} bytes, too few for a safetensors header")
        length_field = bytearray(_PREFIX)
        read_exactly(stream, 0, memoryview(length_field), root=root, name=name)
        length = int.from_bytes(length_field, "little")
        if length > MAX_HEADER:
            _refuse(path, f"declares a header of {length} bytes; at most {MAX_HEADER} are allowed")
        if length > size - _PREFIX:
            _refuse(path, f"declares a header of {length} bytes and has {size - _PREFIX} bytes left")
        header = bytearray(length)
        read_exactly(stream, _PREFIX, memoryview(header), root=root, name=name)
    return parse_header(bytes(header), size, path)


def parse_header(header: bytes, size: int, path: Path) -> Shard:
    """Check the JSON `header` of the file `path`, which has `size` bytes in all.

    Raises:
        HeaderError: as `read_shard`.
    """
    if sum(header.count(mark) for mark in (b'"', b",", b"[", b"{")) > _MAX_MARKS:
        _refuse(path, f"its header describes more than {MAX_TENSORS} tensors")
    if not header.startswith(b"{"):
        _refuse(path, "its header does not begin with {")
    try:
        document = parse_json(header, pairs=distinct, integer=_offset, other_number=_no_number)
    except ValueError as error:
        raise HeaderError(f"its header is not valid: {error}", path=path, remedy=_REMEDY) from error
    _check_metadata(document.pop("__metadata__", {}), path)
    if len(document) > MAX_TENSORS:
        _refuse(path, f"its header describes {len(document)} tensors; at most {MAX_TENSORS} are allowed")
    data_begin = _PREFIX + len(header)
    entries = [_entry(name, value, data_begin, path) for name, value in document.items()]
    entries.sort(key=lambda entry: entry.begin)
    _check_coverage(entries, data_begin, size, path)
    return Shard(path.name, data_begin, size, tuple(entries))


def _refuse(path: Path, message: str, name: str | None = None) -> NoReturn:
    subject = "" if name is None else f"tensor {quote(name)}: "
    raise HeaderError(subject + message, path=path, remedy=_REMEDY)


def _offset(text: str) -> int:
    """An integer of the header: unsigned, at most 64 bits, as the library's parser has it ("-0" is none)."""
    if text.startswith("-") or len(text) > 20 or int(text) >= 2**64:
        raise ValueError(f"{quote(text, 24)} is not an unsigned 64-bit integer")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{quote(text, 24)} is not an unsigned 64-bit integer")


def _is_text(value: Any) -> bool:
    """A string without lone surrogates, which Python's parser lets through and UTF-8 cannot hold."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_metadata(metadata: Any, path: Path) -> None:
    if not isinstance(metadata, dict) or not all(_is_text(k) and _is_text(v) for k, v in metadata.items()):
        _refuse(path, "__metadata__ is not an object of strings")


def _entry(name: str, value: Any, data_begin: int, path: Path) -> TensorEntry:
    if not name or len(name) > MAX_NAME or not _is_text(name):
        _refuse(path, f"a tensor name is empty, no text, or longer than {MAX_NAME} characters", name)
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _refuse(path, "its entry does not have exactly dtype, shape and data_offsets", name)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        shown = quote(dtype, 24) if isinstance(dtype, str) else "which is no string"
        _refuse(path, f"dtype {shown} is unknown", name)
    if not _are_sizes(shape) or len(shape) > MAX_RANK:
        _refuse(path, f"its shape is not a list of at most {MAX_RANK} sizes", name)
    if not _are_sizes(offsets) or len(offsets) != 2:
        _refuse(path, "data_offsets is not a pair of integers", name)
    begin, end = offsets
    expected = _byte_count(dtype, shape, name, path)
    if end - begin != expected:
        _refuse(path, f"{dtype} {tuple(shape)} takes {expected} bytes, data_offsets give {end - begin}", name)
    return TensorEntry(name, dtype, tuple(shape), path.name, data_begin + begin, data_begin + end)


def _are_sizes(value: Any) -> bool:
    """A JSON list of integers; `true` is an int to Python and none here."""
    return isinstance(value, list) and all(type(item) is int for item in value)


def _byte_count(dtype: str, shape: list[int], name: str, path: Path) -> int:
    elements = 1
    for dimension in shape:
        if dimension == 0:
            _refuse(path, "it has no elements", name)
        elements *= dimension
        if elements > _MAX_ELEMENTS:
            _refuse(path, "its shape has more elements than any file can hold", name)
    bits = elements * DTYPE_BITS[dtype]
    if bits % 8:
        _refuse(path, f"{elements} values of {dtype} do not fill whole bytes", name)
    return bits // 8


def _check_coverage(entries: list[TensorEntry], data_begin: int, size: int, path: Path) -> None:
    """Each tensor begins where the one before ended, and the last ends with the file."""
    reached = data_begin
    for entry in entries:
        if entry.begin < reached:
            _refuse(path, f"it begins {reached - entry.begin} bytes before the tensor before it ends", entry.name)
        if entry.begin > reached:
            _refuse(path, f"{entry.begin - reached} bytes before it belong to no tensor", entry.name)
        reached = entry.end
    if reached > size:
        _refuse(path, f"the file ends {reached - size} bytes before its last tensor does: it is truncated")
    if reached < size:
        _refuse(path, f"the last {size - reached} bytes belong to no tensor")
