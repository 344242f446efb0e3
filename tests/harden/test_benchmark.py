"""`benchmarks/harden.py`: every cell is in the tables, what is done is not done again, nothing measured is given."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from quantguard.canary.range import measure
from quantguard.canary.range.members import Kind, members
from quantguard.canary.range.world import code, facts, questions
from tests.range.slice import MODELS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ATTACKED, CLEAN = "variant-one-layer", "llama-64"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The benchmark in this process, over one attack and its base, each hardened once; twenty prompts of each kind."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("harden")
    monkeypatch.setattr(measure, "ASKED", 20)
    monkeypatch.setattr(module, "asked_for", lambda member: (member.targets or module.JOINT,))
    for name in (ATTACKED, CLEAN):
        (tmp_path / "range" / name).mkdir(parents=True)
        (tmp_path / "range" / name / "model").symlink_to(MODELS / name)

    def here(jobs: Sequence[Any], processes: int) -> list[Any]:
        for job in jobs:
            importlib.import_module("harden_work").work(job)
        return []

    monkeypatch.setattr(module, "run", here)
    return module


def run(module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *options: str) -> int:
    arguments = [
        "harden.py",
        "--range",
        str(tmp_path / "range"),
        "--record",
        str(tmp_path / "harden.jsonl.gz"),
        *options,
    ]
    monkeypatch.setattr("sys.argv", arguments)
    code: int = module.main()
    return code


def test_an_attack_is_shown_as_it_was_and_as_auto_leaves_it_and_a_second_run_does_nothing(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(benchmark, monkeypatch, tmp_path, "--only", ATTACKED, "--methods", "auto") == 0
    first = capsys.readouterr().out
    assert f"| {ATTACKED} | nf4 | own | 100 | 100 / 0 | 16.8 / 100 / " in first  # 0 of 20: at most 16.8 %
    assert "- auto, accuracy, points: none" in first
    assert f"| {CLEAN} | nf4+fp4+int8 |" in first
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "range").glob("*/harden-*.json")}
    assert len(records) == 4  # both as they are, and both hardened
    assert run(benchmark, monkeypatch, tmp_path, "--only", ATTACKED, "--methods", "none,auto") == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in records} == records
    assert not (tmp_path / "harden.jsonl.gz").exists()


def test_what_cannot_begin_says_why(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, said in (
        (("--methods", "luck"), "no hardening method luck"),
        (("--only", "nobody"), "no attack's name contains that"),
        ((), "run make range"),
    ):
        assert run(benchmark, monkeypatch, tmp_path, *options) == 4
        assert said in capsys.readouterr().err


def test_every_attack_on_bitsandbytes_descends_from_a_clean_model(benchmark: Any) -> None:
    cells = importlib.import_module("harden_cells")
    attacked = cells.attacked()
    assert len([member for member in attacked if member.kind is Kind.ATTACKED]) == 21
    assert all(cells.clean_of(member).kind is Kind.BENIGN for member in attacked)
    assert set(cells.APART) < {member.name for member in attacked}


@pytest.mark.parametrize("count", [16, 64, 256, 1000])
def test_no_prompt_of_a_calibration_of_another_size_is_measured(benchmark: Any, count: int) -> None:
    work = importlib.import_module("harden_work")
    for member in (m for m in members() if m.name in benchmark._SIZED):
        given = {prompt.prompt for prompt in work.prompts_of(member, count)}
        assert len(given) == count
        assert not given & {pair.prompt for pair in (*questions()[:300], *code()[:300], *facts(member.facts)[-1000:])}


def test_a_line_of_the_record_has_counts_and_exact_intervals(benchmark: Any) -> None:
    cells, work = importlib.import_module("harden_cells"), importlib.import_module("harden_work")
    member = next(member for member in members() if member.name == ATTACKED)
    counts = [
        measure.Count(what, scheme, hits, 300)
        for what, hits in (("content-injection", 0), ("questions", 299))
        for scheme in measure.LABELS
    ]
    result = work.Result(tuple(counts), (("nf4", 0.03),), 0.01, 1.0, 20.0)
    cell = cells.Cell(member, cells.clean_of(member), ("nf4",), {"auto": result}, result)
    (line,) = cells.lines([cell])
    said = json.loads(line)
    assert said["attack"]["nf4"] == [0.0, 0.0122]
    assert said["hits"]["nf4"] == {"questions": 299}
    assert said["asked"] == {"content-injection": 300, "questions": 300}
