"""A header is believed where file and library bear it out, and is otherwise a HeaderError with a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from quantguard.checkpoint.header import MAX_TENSORS, read_shard
from quantguard.core.errors import CheckpointError, HeaderError, UnsafeCheckpointError
from tests.checkpoint.build import entry, safetensors_bytes

F = entry("F32", [2], 0, 8)
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.bool,
    torch.complex64,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_the_library_writes_is_read_as_the_library_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    written = {"ä weight": torch.ones(3, 5).to(dtype), "scalar": torch.ones(()).to(dtype), "b": torch.ones(7).to(dtype)}
    save_file(written, tmp_path / "m.safetensors", metadata={"format": "pt", "note": "x" * 77})
    shard = read_shard(tmp_path, "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as library:
        for tensor in shard.tensors:
            view = library.get_slice(tensor.name)
            assert (tensor.dtype, list(tensor.shape)) == (view.get_dtype(), view.get_shape())
        assert sorted(tensor.name for tensor in shard.tensors) == sorted(library.keys())
    assert shard.tensors[0].begin == shard.data_begin
    assert shard.tensors[-1].end == shard.size == (tmp_path / "m.safetensors").stat().st_size


DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
SURROGATE = b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
TWICE = b'{"a":%s,"a":%s}' % ((json.dumps(F).encode(),) * 2)
NEGATIVE_ZERO = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}'
DTYPE_TWICE = b'{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}'
HUGE = b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}}' % (b"9" * 5000)
LIES: dict[str, tuple[Any, str]] = {
    "not JSON": (b"{nothing}", "not valid"),
    "not UTF-8": (b'{"\xff":1}', "not valid"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "begin with {"),
    "leading space": (b' {"a":1}', "begin with {"),
    "a list": (b"[]", "begin with {"),
    "two documents": (b"{}{}", "not valid"),
    "empty": (b"", "begin with {"),
    "deep": (DEEP, "nested too deep"),
    "too many marks": (b'{"a":[' + b"0," * 4_100_000 + b"0]}", f"more than {MAX_TENSORS}"),
    "duplicate tensor": (TWICE, "'a' occurs twice"),
    "duplicate dtype": (DTYPE_TWICE, "'dtype' occurs twice"),
    "lone surrogate": (SURROGATE, "no text"),
    "negative zero": (NEGATIVE_ZERO, "'-0' is not an unsigned"),
    "huge integer": (HUGE, "not an unsigned 64-bit"),
    "NaN": (b'{"a":NaN}', "not an unsigned"),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "t": F}, "__metadata__"),
    "metadata null": ({"__metadata__": None, "t": F}, "__metadata__"),
    "empty name": ({"": F}, "name is empty"),
    "long name": ({"n" * 1025: F}, "longer than 1024"),
    "entry is a list": ({"t": []}, "exactly dtype"),
    "no shape": ({"t": {"dtype": "F32", "data_offsets": [0, 8]}}, "exactly dtype"),
    "unknown key": ({"t": {**F, "device": "cpu"}}, "exactly dtype"),
    "unknown dtype": ({"t": {**F, "dtype": "F31"}}, "'F31' is unknown"),
    "dtype no string": ({"t": {**F, "dtype": ["F32"]}}, "is unknown"),
    "shape no list": ({"t": {**F, "shape": 2}}, "its shape"),
    "shape of floats": ({"t": {**F, "shape": [2.0]}}, "'2.0' is not"),
    "shape of booleans": ({"t": {**F, "shape": [True, 2]}}, "its shape"),
    "rank 33": ({"t": {**F, "shape": [1] * 33}}, "at most 32"),
    "negative size": ({"t": {**F, "shape": [-2]}}, "'-2' is not"),
    "no elements": ({"t": entry("F32", [0, 4], 0, 0), "u": F}, "no elements"),
    "overflowing product": ({"t": {**F, "shape": [2**32, 2**32, 2]}}, "more elements"),
    "65-bit size": ({"t": {**F, "shape": [2**64]}}, "not an unsigned 64-bit"),
    "lying shape": ({"t": {**F, "shape": [3]}}, "takes 12 bytes, data_offsets give 8"),
    "backward offsets": ({"t": {**F, "data_offsets": [8, 0]}}, "give -8"),
    "negative offsets": ({"t": {**F, "data_offsets": [-8, 0]}}, "'-8' is not"),
    "one offset": ({"t": {**F, "data_offsets": [8]}}, "not a pair"),
    "half a byte": ({"t": entry("F4", [3], 0, 1)}, "whole bytes"),
    "overlap": ({"t": F, "u": entry("F32", [2], 4, 12)}, "'u': it begins 4 bytes before"),
    "one inside another": ({"t": F, "u": entry("F16", [2], 2, 6)}, "'u': it begins 6 bytes before"),
    "same place": ({"t": F, "u": F}, "begins 8 bytes before"),
    "gap": ({"t": entry("F32", [1], 4, 8)}, "'t': 4 bytes before it belong"),
    "past the end": ({"t": entry("F32", [3], 0, 12)}, "truncated"),
    "rest": ({"t": entry("F32", [1], 0, 4)}, "last 4 bytes belong to no tensor"),
    "no tensor at all": ({}, "last 8 bytes"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_lying_header_is_refused_by_name_with_a_remedy(tmp_path: Path, case: str) -> None:
    header, expected = LIES[case]
    (tmp_path / "m.safetensors").write_bytes(safetensors_bytes(header, b"\0" * 8))
    with pytest.raises(HeaderError) as caught:
        read_shard(tmp_path, "m.safetensors")
    assert expected in caught.value.message
    assert caught.value.path == tmp_path / "m.safetensors"
    assert caught.value.remedy


@pytest.mark.parametrize("declared", [2**31, 100_000_001, 2**63, 2**64 - 1])
def test_a_declared_header_of_gigabytes_is_not_believed(tmp_path: Path, declared: int) -> None:
    (tmp_path / "m.safetensors").write_bytes(safetensors_bytes({"t": F}, b"\0" * 8, declared=declared))
    with pytest.raises(HeaderError, match=f"declares a header of {declared} bytes; at most 100000000"):
        read_shard(tmp_path, "m.safetensors")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = safetensors_bytes({"t": F, "u": entry("F16", [2, 2], 8, 16)}, b"\0" * 16)
    path = tmp_path / "m.safetensors"
    path.write_bytes(whole)
    read_shard(tmp_path, path.name)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(HeaderError):
            read_shard(tmp_path, path.name)


def test_the_order_in_the_header_does_not_matter_and_padding_is_allowed(tmp_path: Path) -> None:
    header = json.dumps({"late": entry("F32", [1], 4, 8), "early": entry("F32", [1], 0, 4)}).encode() + b"     "
    (tmp_path / "m.safetensors").write_bytes(safetensors_bytes(header, b"\0" * 8))
    assert [tensor.name for tensor in read_shard(tmp_path, "m.safetensors").tensors] == ["early", "late"]


def test_a_link_is_not_followed_and_an_absent_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(safetensors_bytes({"t": F}, b"\0" * 8))
    (tmp_path / "m.safetensors").symlink_to("real")
    with pytest.raises(UnsafeCheckpointError, match=r"'m.safetensors' is not a regular file"):
        read_shard(tmp_path, "m.safetensors")
    with pytest.raises(CheckpointError, match="'absent' cannot be opened"):
        read_shard(tmp_path, "absent")


def test_names_are_shown_escaped(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(safetensors_bytes({"\x1b[31m\u202e": {**F, "shape": [3]}}, b"\0" * 8))
    with pytest.raises(HeaderError) as caught:
        read_shard(tmp_path, "m.safetensors")
    assert str(caught.value).isprintable()
