"""Reading in pieces, threads and processes: the same counts, in bounded memory, or an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quantguard.checkpoint.layout import open_checkpoint
from quantguard.core.errors import CheckpointError
from quantguard.core.scheme import Scheme
from quantguard.scan.plan import Effort, planned
from quantguard.scan.reading import Reader, tallies
from quantguard.scan.scan import scan
from quantguard.scan.workers import CORES_EACH, WORTH, processes_for
from tests.checkpoint.build import write_model
from tests.scan.weights import counts_of, dequantized, generator, honest, prepared

SIZE = (6000, 133)  # more than a piece, and blocks that run over rows


def sharded(directory: Path) -> Path:
    weights = {f"layers.{n}.weight": honest(n, size=(300, 200)) for n in range(6)}
    weights["layers.2.weight"] = prepared(weights["layers.2.weight"], Scheme.NF4, 0.3)
    weights["layers.3.weight"] = dequantized(weights["layers.3.weight"], Scheme.INT8)
    weights["layers.4.weight"] = weights["layers.4.weight"].bfloat16().float()
    weights["tiny.weight"] = honest(9, size=(4, 8))
    weights["norm.weight"] = torch.ones(77)
    return write_model(directory, weights, shards=3)


def read(directory: Path, threads: int) -> dict[str, tuple[Tensor, Tensor]]:
    checkpoint = open_checkpoint(directory)
    plan = planned(checkpoint, Effort.FULL, 0)
    found = {}
    with Reader(checkpoint) as reader:
        for tally in tallies(reader, plan, threads=threads, on_bytes=lambda *_: None):
            counts = tally.counts
            assert tally.finite
            assert counts is not None
            found[tally.planned.entry.name] = (counts.block.clone(), counts.row.clone())
    return found


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pieces_in_threads_count_what_the_whole_tensor_counts(tmp_path: Path, threads: int) -> None:
    weights = {f"layers.{n}.weight": honest(n, size=SIZE) for n in range(3)}
    found = read(write_model(tmp_path / "m", weights), threads)
    assert list(found) == list(weights)
    for name, weight in weights.items():
        whole = counts_of(weight)
        assert torch.equal(found[name][0], whole.block)
        assert torch.equal(found[name][1], whole.row)


@pytest.mark.parametrize("shape", [(133, 6000), (64, 64), (70, 3)])
def test_a_tensor_stored_transposed_counts_as_the_other_way_round(tmp_path: Path, shape: tuple[int, int]) -> None:
    stored = honest(1, size=shape)
    directory = write_model(tmp_path / "m", {"h.0.c_fc.weight": stored}, config={"model_type": "gpt2"})
    (found,) = read(directory, 1).values()
    whole = counts_of(stored.T.contiguous())
    assert torch.equal(found[0], whole.block)
    assert torch.equal(found[1], whole.row)


def test_samples_are_what_is_stored_there(tmp_path: Path) -> None:
    weight = honest(1, torch.bfloat16, (300, 2048))
    for model_type in ("llama", "gpt2"):
        directory = write_model(tmp_path / model_type, {"h.0.c_fc.weight": weight}, config={"model_type": model_type})
        checkpoint = open_checkpoint(directory)
        (plan,) = planned(checkpoint, Effort.FULL, 1)
        with Reader(checkpoint) as reader:
            sample = reader.segments(plan)
        logical = weight.T if plan.transposed else weight
        places = [(column, row) if plan.transposed else (row, column) for row, column in plan.segments]
        assert sample.dtype is torch.bfloat16
        for segment, (row, column) in zip(sample, places, strict=True):
            assert torch.equal(segment, logical[row, column : column + plan.width])


@pytest.mark.parametrize("effort", list(Effort))
def test_two_processes_find_what_one_finds(tmp_path: Path, effort: Effort) -> None:
    directory = sharded(tmp_path / "m")
    seen: list[tuple[int, int]] = []
    alone = scan(directory, seed=3, effort=effort, processes=1)
    both = scan(
        directory,
        seed=3,
        effort=effort,
        processes=2,
        progress=lambda _, done, total, __="": seen.append((done, total)),
    )
    assert both == alone
    assert alone.findings
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_an_error_in_a_process_is_the_error_of_the_scan(tmp_path: Path) -> None:
    directory = sharded(tmp_path / "m")
    file = directory / "model-00003-of-00003.safetensors"
    data = bytearray(file.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    file.write_bytes(bytes(data))
    messages = []
    for processes in (1, 2):
        with pytest.raises(CheckpointError, match="nan at index") as caught:
            scan(directory, seed=0, processes=processes)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_processes_are_started_for_large_shards_only(tmp_path: Path) -> None:
    plan = planned(open_checkpoint(sharded(tmp_path / "m")), Effort.FULL, 0)
    assert processes_for(plan, 64) == 1
    large = [*plan] * (3 * WORTH // sum(one.size for one in plan) + 1)
    assert processes_for(large, 4 * CORES_EACH) == 3
    assert processes_for(large, 2 * CORES_EACH) == 2
    assert processes_for(large, 1) == 1


@pytest.mark.parametrize("linear", [True, False])
def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(tmp_path: Path, *, linear: bool) -> None:
    name = "layers.0.weight" if linear else "model.embed_tokens.weight"
    directory = write_model(tmp_path / "m", {name: honest(1, size=SIZE)})
    checkpoint = open_checkpoint(directory)
    plan = planned(checkpoint, Effort.FULL, 0)
    file = directory / "model.safetensors"
    with Reader(checkpoint) as reader:
        size = file.stat().st_size
        with file.open("r+b") as stream:
            stream.truncate(size - 1)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            list(tallies(reader, plan, threads=2, on_bytes=lambda *_: None))


def test_a_scan_leaves_torch_with_the_threads_it_had(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m", {"one.weight": honest(1)})
    before = torch.get_num_threads()
    scan(directory, seed=0)
    assert torch.get_num_threads() == before


def test_memory_is_that_of_the_pieces_and_not_of_the_tensor(tmp_path: Path) -> None:
    """192 MiB in one tensor, and far less on top of what importing takes."""
    weight = torch.randn(1024, 1024, generator=generator(1)).repeat(48, 1)
    large = write_model(tmp_path / "large", {"one.weight": weight})
    small = write_model(tmp_path / "small", {"one.weight": weight[:1024].clone()})
    program = (
        "import resource, sys, torch; torch.set_num_threads(2); from pathlib import Path;"
        "from quantguard.scan.scan import scan; scan(Path(sys.argv[1]), seed=0);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = [
        int(subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=True, text=True).stdout)
        for path in (small, large)
    ]
    assert peaks[1] - peaks[0] < 64 * 1024  # KiB
