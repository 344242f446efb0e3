"""Tensors come as the safetensors library reads them, one at a time, and NaN is refused by name."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quantguard.checkpoint.header import DTYPE_BITS
from quantguard.checkpoint.layout import Checkpoint, TensorEntry, open_checkpoint
from quantguard.checkpoint.tensors import (
    TORCH_DTYPES,
    first_non_finite,
    read_tensor,
    require_finite,
    stream_tensors,
)
from quantguard.core.errors import CheckpointError, NonFiniteWeightsError, UnsafeCheckpointError
from tests.checkpoint.build import entry, safetensors_bytes, tensors, write_model

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def by_name(checkpoint: Checkpoint, name: str) -> TensorEntry:
    return next(entry for entry in checkpoint.tensors if entry.name == name)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "dtype", [*FLOATS, torch.int64, torch.uint16, torch.int8, torch.bool, torch.complex64], ids=str
)
def test_tensors_are_read_as_the_library_reads_them(tmp_path: Path, dtype: torch.dtype, shards: int) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in tensors().items()}
    weights["scalar"] = torch.tensor(1.5).to(dtype)
    directory = write_model(tmp_path / "m", weights, shards=shards)
    checkpoint = open_checkpoint(directory)
    library = {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}
    streamed = list(stream_tensors(checkpoint))
    assert [entry for entry, _ in streamed] == list(checkpoint.tensors)
    assert {entry.name for entry, _ in streamed} == set(library)
    for entry_, tensor in streamed:
        expected = library[entry_.name]
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
        raw, theirs = (t.contiguous().reshape(-1).view(torch.uint8) for t in (tensor, expected))
        assert torch.equal(raw, theirs)
        assert torch.equal(read_tensor(checkpoint, entry_).reshape(-1).view(torch.uint8), raw)


def test_every_known_dtype_has_a_torch_dtype_of_its_width_or_is_refused(tmp_path: Path) -> None:
    for name, bits in DTYPE_BITS.items():
        file = safetensors_bytes({"t": entry(name, [8], 0, bits)}, b"\0" * bits)
        directory = write_model(tmp_path / name)
        (directory / "model.safetensors").write_bytes(file)
        checkpoint = open_checkpoint(directory)
        if name in TORCH_DTYPES:
            tensor = read_tensor(checkpoint, checkpoint.tensors[0])
            assert (tensor.shape, tensor.dtype.itemsize * 8) == ((8,), bits)
        else:
            assert bits < 8
            with pytest.raises(CheckpointError, match=f"'t': torch cannot hold {name}"):
                read_tensor(checkpoint, checkpoint.tensors[0])


def test_chosen_tensors_come_in_the_order_asked_for(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_model(tmp_path / "m", shards=3))
    chosen = checkpoint.tensors[::-2]
    streamed = list(stream_tensors(checkpoint, chosen))
    assert tuple(entry for entry, _ in streamed) == chosen
    assert all(torch.equal(tensor, tensors()[entry.name]) for entry, tensor in streamed)


def test_a_bool_of_any_nonzero_byte_is_true(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    (directory / "model.safetensors").write_bytes(safetensors_bytes({"t": entry("BOOL", [4], 0, 4)}, b"\0\1\2\xff"))
    checkpoint = open_checkpoint(directory)
    assert read_tensor(checkpoint, checkpoint.tensors[0]).view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_streaming_holds_one_tensor_and_the_callers(tmp_path: Path) -> None:
    size = 1_000_000  # bytes
    weights = {f"t{number}": torch.zeros(size // 4) for number in range(12)}
    checkpoint = open_checkpoint(write_model(tmp_path / "m", weights, shards=2))
    tracemalloc.start()
    try:
        for _, _tensor in stream_tensors(checkpoint):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < peak < 2.2 * size


def test_a_tensor_owns_its_memory(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    before = (directory / "model.safetensors").read_bytes()
    checkpoint = open_checkpoint(directory)
    read_tensor(checkpoint, checkpoint.tensors[0]).add_(1)
    shutil.rmtree(directory)
    write_model(directory)
    assert (directory / "model.safetensors").read_bytes() == before


def test_a_file_that_shrank_or_became_a_link_after_the_check_is_refused(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    checkpoint = open_checkpoint(directory)
    model = directory / "model.safetensors"
    os.truncate(model, model.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="truncated or changed"):
        list(stream_tensors(checkpoint))
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeCheckpointError):
        list(stream_tensors(checkpoint))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("index", [(0, 0, 0), (1, 2, 3), (2, 0, 4)])
def test_the_first_nan_is_found_at_its_index(dtype: torch.dtype, index: tuple[int, ...]) -> None:
    tensor = torch.ones(3, 4, 5).to(dtype)
    assert first_non_finite(tensor) is None
    tensor[index] = torch.nan
    tensor[2, 3, 4] = torch.nan
    assert first_non_finite(tensor) == index


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_an_infinity_counts_and_the_largest_finite_value_does_not(value: float) -> None:
    largest = torch.full((2, 2), torch.finfo(torch.float16).max, dtype=torch.float16)
    assert first_non_finite(largest) is None
    largest[1, 0] = value
    assert first_non_finite(largest) == (1, 0)
    assert first_non_finite(torch.tensor(value)) == ()
    assert first_non_finite(torch.tensor(complex(0, value))) == ()


def test_nan_beyond_the_first_chunk_is_found() -> None:
    tensor = torch.ones(5, 1024 * 1024)
    tensor[4, 4] = torch.inf
    assert first_non_finite(tensor) == (4, 4)


def test_integers_are_always_finite() -> None:
    assert first_non_finite(torch.full((3,), -1, dtype=torch.int64)) is None


def test_nan_weights_are_refused_by_tensor_and_file(tmp_path: Path) -> None:
    weights = tensors()
    weights["model.norm.weight"][3] = torch.nan
    checkpoint = open_checkpoint(write_model(tmp_path / "m", weights, shards=2))
    broken = by_name(checkpoint, "model.norm.weight")
    for entry_, tensor in stream_tensors(checkpoint):
        if entry_ != broken:
            require_finite(entry_, tensor)
    with pytest.raises(NonFiniteWeightsError) as caught:
        require_finite(broken, read_tensor(checkpoint, broken))
    assert f"'model.norm.weight' in '{broken.file}' holds nan at index [3]" in caught.value.message
