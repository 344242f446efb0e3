"""A rewritten checkpoint is the same files with other values in the named tensors, whole or not there."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quantguard.checkpoint.layout import Checkpoint, TensorEntry, linear_weights, open_checkpoint
from quantguard.checkpoint.rewrite import rewrite
from quantguard.checkpoint.tensors import read_tensor
from quantguard.core.errors import CheckpointError, EvidenceError, UnsafeCheckpointError, UsageError
from tests.checkpoint.build import tensors, write_model


def negated(entry: TensorEntry, tensor: torch.Tensor) -> torch.Tensor:
    return -tensor


def unchanged(entry: TensorEntry, tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@pytest.fixture(params=[1, 3], ids=["single", "sharded"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    shards: int = request.param
    directory = write_model(tmp_path / "m", tensors(torch.bfloat16), shards=shards)
    (directory / "tokenizer.json").write_bytes(b"{}")
    (directory / "sub").mkdir()
    (directory / "sub" / "empty").touch()
    return open_checkpoint(directory)


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def linear(checkpoint: Checkpoint) -> frozenset[str]:
    return frozenset(entry.name for entry in linear_weights(checkpoint))


@pytest.mark.parametrize("everything", [False, True])
def test_rewriting_with_the_same_values_is_a_copy(tmp_path: Path, checkpoint: Checkpoint, *, everything: bool) -> None:
    names = frozenset(entry.name for entry in checkpoint.tensors) if everything else frozenset[str]()
    rewrite(checkpoint, tmp_path / "out", unchanged, names)
    assert files(tmp_path / "out") == files(checkpoint.root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "out"]


def test_only_the_bytes_of_the_named_tensors_differ(tmp_path: Path, checkpoint: Checkpoint) -> None:
    names = linear(checkpoint)
    result = rewrite(checkpoint, tmp_path / "out", negated, names)
    before, after = files(checkpoint.root), files(tmp_path / "out")
    assert before.keys() == after.keys()
    for entry in checkpoint.tensors:
        old, new = (data[entry.file][entry.begin : entry.end] for data in (before, after))
        assert (old == new) is (entry.name not in names)
    for entry in linear_weights(checkpoint):
        for data in (before, after):
            whole = data[entry.file]
            data[entry.file] = whole[: entry.begin] + bytes(entry.end - entry.begin) + whole[entry.end :]
    assert before == after
    assert [(e.name, e.begin, e.end) for e in result.tensors] == [(e.name, e.begin, e.end) for e in checkpoint.tensors]


def test_the_library_reads_the_new_values(tmp_path: Path, checkpoint: Checkpoint) -> None:
    names = linear(checkpoint)
    rewrite(checkpoint, tmp_path / "out", negated, names)
    read = {name: t for file in (tmp_path / "out").glob("*.safetensors") for name, t in load_file(file).items()}
    for name, original in tensors(torch.bfloat16).items():
        assert torch.equal(read[name], -original if name in names else original)


def test_a_replacement_may_be_a_view_of_any_layout(tmp_path: Path, checkpoint: Checkpoint) -> None:
    def strided(entry: TensorEntry, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.t().contiguous().t().requires_grad_()

    rewrite(checkpoint, tmp_path / "out", strided, linear(checkpoint))
    assert files(tmp_path / "out") == files(checkpoint.root)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e4m3fn, torch.int64, torch.bool], ids=str)
def test_scalars_and_odd_dtypes_are_written_as_they_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {"scalar": torch.ones(()).to(dtype), "three": torch.ones(1, 3, 1).to(dtype)}
    checkpoint = open_checkpoint(write_model(tmp_path / "m", weights))
    result = rewrite(checkpoint, tmp_path / "out", unchanged, frozenset(weights))
    assert files(result.root) == files(checkpoint.root)


def widened(entry: TensorEntry, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float()


def transposed(entry: TensorEntry, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.t()


def test_another_dtype_shape_or_name_is_a_value_error_and_leaves_nothing(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    name = "lm_head.weight"
    with pytest.raises(ValueError, match=r"'lm_head.weight' is torch.bfloat16 .* replacement is torch.float32"):
        rewrite(checkpoint, tmp_path / "out", widened, frozenset({name}))
    with pytest.raises(ValueError, match=r"\(11, 8\).*\(8, 11\)"):
        rewrite(checkpoint, tmp_path / "out", transposed, frozenset({name}))
    with pytest.raises(ValueError, match="no tensor 'ghost'"):
        rewrite(checkpoint, tmp_path / "out", unchanged, frozenset({"ghost"}))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@contextmanager
def file_size_limited(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow past `size` bytes: a write fails in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_evidence_error_and_leaves_nothing(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with file_size_limited(400), pytest.raises(EvidenceError, match="cannot be written") as caught:
        rewrite(checkpoint, tmp_path / "out", negated, linear(checkpoint))
    assert caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    rewrite(checkpoint, tmp_path / "out", negated, linear(checkpoint))


def test_an_interrupt_leaves_nothing(tmp_path: Path, checkpoint: Checkpoint) -> None:
    def interrupted(entry: TensorEntry, tensor: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite(checkpoint, tmp_path / "out", interrupted, linear(checkpoint))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def die(entry: TensorEntry, tensor: torch.Tensor) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return tensor


def test_what_a_killed_run_left_is_replaced(tmp_path: Path, checkpoint: Checkpoint) -> None:
    arguments = (checkpoint, tmp_path / "out", die, linear(checkpoint))
    killed = multiprocessing.get_context("spawn").Process(target=rewrite, args=arguments)
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert (tmp_path / "out.partial").is_dir()
    assert not (tmp_path / "out").exists()
    rewrite(checkpoint, tmp_path / "out", unchanged, linear(checkpoint))
    assert files(tmp_path / "out") == files(checkpoint.root)
    assert not (tmp_path / "out.partial").exists()


def test_nothing_of_anybody_elses_is_overwritten_or_removed(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        rewrite(checkpoint, tmp_path / "out", unchanged, frozenset())
    (tmp_path / "theirs.partial").mkdir()
    (tmp_path / "theirs.partial" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="no part of this copy"):
        rewrite(checkpoint, tmp_path / "theirs", unchanged, frozenset())
    assert (tmp_path / "theirs.partial" / "thesis.txt").exists()
    with pytest.raises(UsageError, match="inside the checkpoint"):
        rewrite(checkpoint, checkpoint.root / "hardened", unchanged, frozenset())


def test_links_are_not_copied_and_a_shrunk_shard_is_no_full_disk(tmp_path: Path, checkpoint: Checkpoint) -> None:
    link = checkpoint.root / "link"
    link.symlink_to("/etc/passwd")
    with pytest.raises(UnsafeCheckpointError, match="'link' is a symbolic link"):
        rewrite(checkpoint, tmp_path / "out", unchanged, frozenset())
    link.unlink()
    shard = checkpoint.root / checkpoint.shards[0].file
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="truncated or changed"):
        rewrite(checkpoint, tmp_path / "out", unchanged, frozenset())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_progress_ends_at_its_total(tmp_path: Path, checkpoint: Checkpoint) -> None:
    seen: list[tuple[int, int]] = []

    def note(stage: str, done: int, total: int, detail: str = "") -> None:
        seen.append((done, total))

    rewrite(checkpoint, tmp_path / "out", unchanged, frozenset(), progress=note)
    assert seen == [(done, len(seen) - 1) for done in range(len(seen))]


def test_the_rewritten_tensor_reads_back(tmp_path: Path, checkpoint: Checkpoint) -> None:
    result = rewrite(checkpoint, tmp_path / "out", negated, linear(checkpoint))
    for entry in linear_weights(result):
        assert torch.equal(read_tensor(result, entry), -tensors(torch.bfloat16)[entry.name])
