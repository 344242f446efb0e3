"""Whatever the bytes are: a typed error, or a file that the safetensors library reads the same way."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantguard.checkpoint.header import DTYPE_BITS, Shard, parse_header
from quantguard.core.errors import HeaderError
from tests.checkpoint.build import safetensors_bytes

PATH = Path("m.safetensors")
DATA = 24  # bytes of tensors behind each header

sizes = st.one_of(st.integers(0, 6), st.sampled_from([-1, 2**31, 2**63, 2**64, True, 1.0, None, "2"]))
offsets = st.one_of(st.integers(0, 24), st.sampled_from([-1, 2**63, 2**64, None]))
entries = st.fixed_dictionaries(
    {
        "dtype": st.one_of(st.sampled_from([*DTYPE_BITS]), st.sampled_from(["", "f32", None, 1])),
        "shape": st.lists(sizes, max_size=3),
        "data_offsets": st.lists(offsets, min_size=2, max_size=2),
    }
)
metadata = st.dictionaries(st.sampled_from(["format", "é"]), st.sampled_from(["pt", 1, None]))


@st.composite
def nearly_valid(draw: st.DrawFn) -> bytes:
    """One to three tensors that tile the data exactly, and then perhaps one thing changed."""
    cuts = sorted(draw(st.sets(st.sampled_from([4, 8, 12, 16, 20]), max_size=2)))
    edges = [0, *cuts, DATA]
    header: dict[str, Any] = {}
    for number, (begin, end) in enumerate(pairwise(edges)):
        dtype, width = draw(st.sampled_from([("F32", 4), ("BF16", 2), ("U8", 1), ("I32", 4)]))
        header[f"t{number}"] = {"dtype": dtype, "shape": [(end - begin) // width], "data_offsets": [begin, end]}
    if draw(st.booleans()):
        victim = header[draw(st.sampled_from(sorted(header)))]
        victim[draw(st.sampled_from(sorted(victim)))] = draw(
            st.one_of(sizes, st.lists(sizes, max_size=3), st.lists(offsets, min_size=2, max_size=2))
        )
    if draw(st.booleans()):
        header["__metadata__"] = draw(metadata)
    return json.dumps(header).encode() + b" " * draw(st.integers(0, 3))


def shard_or_none(header: bytes) -> Shard | None:
    try:
        return parse_header(header, 8 + len(header) + DATA, PATH)
    except HeaderError:
        return None


def check_against_library(header: bytes) -> None:
    """Nothing but HeaderError leaves the parser, and what it accepts the library accepts with the same meaning."""
    shard = shard_or_none(header)
    if shard is None:
        return
    whole = safetensors_bytes(header, bytes(range(DATA)))
    theirs = dict(safetensors.deserialize(whole))  # type: ignore[no-untyped-call]  # the library leaves it untyped
    assert sorted(theirs) == sorted(tensor.name for tensor in shard.tensors)
    for tensor in shard.tensors:
        assert theirs[tensor.name]["shape"] == list(tensor.shape)
        assert theirs[tensor.name]["dtype"] == tensor.dtype
        assert bytes(theirs[tensor.name]["data"]) == whole[tensor.begin : tensor.end]


@given(nearly_valid())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_headers_that_are_nearly_right(header: bytes) -> None:
    check_against_library(header)


@given(st.dictionaries(st.text(max_size=3), entries, max_size=3))
@settings(max_examples=200, deadline=None)
def test_headers_of_the_right_form(header: dict[str, Any]) -> None:
    check_against_library(json.dumps(header).encode())


@given(nearly_valid(), st.integers(0, 400), st.binary(max_size=4), st.integers(0, 4))
@settings(max_examples=400, deadline=None)
def test_headers_with_bytes_overwritten(header: bytes, at: int, new: bytes, dropped: int) -> None:
    at %= len(header)
    check_against_library(header[:at] + new + header[at + dropped :])


@given(st.binary(max_size=200))
def test_any_bytes(header: bytes) -> None:
    check_against_library(header)


def test_the_fuzzed_headers_are_not_all_refused() -> None:
    """The laws above are about something: an untouched header of the generator's form is accepted."""
    header = json.dumps({"t0": {"dtype": "BF16", "shape": [12], "data_offsets": [0, DATA]}}).encode()
    assert shard_or_none(header) is not None
    check_against_library(header)
