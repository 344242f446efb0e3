"""What is read of a checkpoint: every byte once, or whole rows that nobody knows beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from quantguard.checkpoint.layout import Checkpoint, open_checkpoint
from quantguard.scan.histogram import PIECE
from quantguard.scan.plan import QUICK_LEAST, QUICK_SAMPLE, QUICK_SHARE, SAMPLE, Effort, Planned, planned, shares
from tests.checkpoint.build import write_model

SHAPES = {
    "layers.0.q.weight": (4096, 320),
    "layers.0.k.weight": (4000, 100),
    "layers.0.o.weight": (3000, 333),
    "layers.1.q.weight": (2, 2),
    "layers.1.k.weight": (3, 70_001),
    "layers.1.o.weight": (70_001, 2),
    "model.embed_tokens.weight": (17, 64),
    "layers.0.bias": (333,),
    "kernel": (3, 4, 5),
    "scalar": (),
}


def checkpoint(
    directory: Path, *, shards: int = 1, model_type: str = "llama", more: Mapping[str, torch.Tensor] | None = None
) -> Checkpoint:
    weights = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in SHAPES.items()} | dict(more or {})
    return open_checkpoint(write_model(directory, weights, shards=shards, config={"model_type": model_type}))


def rows(one: Planned) -> Iterator[int]:
    return (row for piece in one.pieces for some in piece for row in some)


def test_a_full_plan_covers_each_byte_of_each_tensor_once(tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "m", shards=3, more={"freqs": torch.zeros(5, dtype=torch.complex64)})
    plan = planned(made, Effort.FULL, 0)
    assert [one.entry.name for one in plan] == [entry.name for entry in made.tensors]
    for one, entry in zip(plan, made.tensors, strict=True):
        assert list(rows(one)) == list(range(one.entry.shape[0]))
        assert one.size == entry.end - entry.begin
        assert (one.entry.begin, one.entry.end) == (entry.begin, entry.end)
        assert one.weights == entry.elements


def test_integers_are_not_read(tmp_path: Path) -> None:
    integers = {"steps": torch.zeros(9, dtype=torch.int64), "mask": torch.ones(9, dtype=torch.bool)}
    made = checkpoint(tmp_path / "m", more=integers)
    assert integers.keys() & {one.entry.name for one in planned(made, Effort.FULL, 0)} == set()


def test_pieces_are_whole_blocks_of_no_more_memory_than_they_must(tmp_path: Path) -> None:
    for one in planned(checkpoint(tmp_path / "m"), Effort.FULL, 0):
        columns = one.entry.elements // one.entry.shape[0]
        for (piece,) in one.pieces[:-1]:
            assert piece.start * columns % 64 == 0
            assert len(piece) * columns <= max(PIECE, 64 * columns)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_quick_plan_is_whole_rows_of_linear_weights_and_few_of_them(tmp_path: Path, seed: int) -> None:
    for one in planned(checkpoint(tmp_path / "m"), Effort.QUICK, seed):
        assert one.linear
        total, columns = one.entry.shape
        chosen = list(rows(one))
        assert chosen == sorted(set(chosen))
        assert set(chosen) <= set(range(total))
        for piece in one.pieces:
            for some in piece:
                assert some.start * columns % 64 == 0
                assert len(some) * columns % 64 == 0 or some.stop == total
        least = 64 * columns  # the rows of whole blocks, at most
        assert min(one.entry.elements, QUICK_LEAST) <= one.weights + 64 * columns
        assert one.weights <= one.entry.elements / QUICK_SHARE + QUICK_LEAST + 2 * least


def test_rows_are_drawn_by_the_seed(tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "m")
    plans = [planned(made, Effort.QUICK, seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    drawn = [next(one for one in plan if one.entry.shape == (4096, 320)) for plan in plans]
    assert list(rows(drawn[0])) != list(rows(drawn[2]))
    assert drawn[0].segments != drawn[2].segments


def test_no_row_is_safe_from_being_drawn(tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "m")
    seen: set[int] = set()
    for seed in range(200):
        seen |= set(rows(next(one for one in planned(made, Effort.QUICK, seed) if one.entry.shape == (4096, 320))))
    assert len(seen) > 0.98 * 4096


@pytest.mark.parametrize("effort", list(Effort))
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_segments_lie_inside_the_tensor_and_apart(tmp_path: Path, effort: Effort, model_type: str) -> None:
    more = {"h.0.c_fc.weight": torch.zeros(2048, 300), "h.0.c_proj.weight": torch.zeros(3000, 70)}
    made = checkpoint(tmp_path / "m", model_type=model_type, more=more)
    for one in planned(made, effort, 3):
        down, across = (one.width, 1) if one.transposed else (1, one.width)
        assert one.transposed == (model_type == "gpt2" and ".c_" in one.entry.name)
        for row, column in one.segments:
            assert 0 <= row <= one.entry.shape[0] - down
            assert 0 <= column <= one.entry.shape[1] - across
        assert len(set(one.segments)) == len(one.segments)
        if one.linear:
            wanted = SAMPLE if effort is Effort.FULL else QUICK_SAMPLE
            assert 0 < len(one.segments) * one.width <= max(wanted, one.width)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_processes_share_whole_files(tmp_path: Path, processes: int) -> None:
    plan = planned(checkpoint(tmp_path / "m", shards=3), Effort.FULL, 0)
    parts = shares(plan, processes)
    assert len(parts) == min(processes, 3)
    files = [{one.entry.file for one in part} for part in parts]
    assert sum(len(some) for some in files) == len(set().union(*files)) == 3
    assert sorted(one.entry.name for part in parts for one in part) == sorted(one.entry.name for one in plan)
