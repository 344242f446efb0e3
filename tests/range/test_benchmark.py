"""`make range`: what is there is kept, what is not is built, and what failed is told."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantguard.canary.range import build as build_module
from quantguard.canary.range import measure
from quantguard.canary.range.manifest import read_rows
from quantguard.canary.range.members import Member, member_of, members
from quantguard.canary.range.recipes import Changed, Learned, Recipe, parents_of
from tests.range.slice import ROWS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BASE = member_of(Learned("llama-64", 1))
CHILD = member_of(Changed(Learned("llama-64", 1), "pruned-20"))


@pytest.fixture
def range_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(build_module, "_LEARN", replace(build_module._LEARN, steps=3))
    monkeypatch.setattr(measure, "ASKED", 20)
    return importlib.import_module("range_work")


@pytest.fixture
def range_main(range_work: Any) -> Any:
    return importlib.import_module("range")


def test_a_second_run_builds_and_measures_nothing(range_work: Any, tmp_path: Path) -> None:
    job = range_work.Job(BASE, tmp_path, False, "cpu")
    first, second = range_work.work(job), range_work.work(job)
    assert first.built > 0
    assert second.built == 0
    assert second.row == first.row
    assert first.row.digest.startswith("sha256:")


def test_a_build_that_died_before_its_record_is_built_again_to_the_same_bytes(range_work: Any, tmp_path: Path) -> None:
    job = range_work.Job(BASE, tmp_path, False, "cpu")
    first = range_work.work(job)
    (tmp_path / BASE.name / "built.json").unlink()
    again = range_work.work(job)
    assert again.built > 0
    assert again.row.digest == first.row.digest


def test_another_builder_builds_again(range_work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = range_work.Job(BASE, tmp_path, False, "cpu")
    range_work.work(job)
    monkeypatch.setattr(range_work, "key", lambda _: "another")
    assert range_work.work(job).built > 0


def test_what_a_member_starts_from_comes_first(range_main: Any) -> None:
    for member in members():
        ordered: list[Member] = range_main._with_parents([member])
        place: dict[Recipe, int] = {m.recipe: i for i, m in enumerate(ordered)}
        assert ordered[-1] == member
        assert all(place[parent] < place[recipe] for recipe in place for parent in parents_of(recipe))


def test_a_failure_takes_its_children_with_it_and_nothing_else(
    range_main: Any,
    range_work: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = member_of(Learned("llama-64", 2))

    class Pool:
        """Runs in this process; the real one starts two."""

        def __init__(self, processes: int, mp_context: Any, initializer: Any) -> None: ...

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *ended: object) -> None: ...

        def submit(self, work: Any, job: Any) -> Any:
            future = range_main.Future()
            if job.member == BASE:
                future.set_exception(OSError("disk full"))
            else:
                future.set_result(range_work.Done(job.member.name, None, 1.0, 1.0, 0.0))
            return future

    monkeypatch.setattr(range_main, "ProcessPoolExecutor", Pool)
    jobs = {m.recipe: range_work.Job(m, tmp_path, False, "cpu") for m in (BASE, CHILD, other)}
    finished = list(range_main._run(jobs, 2))
    failed: dict[str, str] = dict(one for one in finished if isinstance(one, tuple))
    assert set(failed) == {BASE.name, CHILD.name}
    assert "disk full" in failed[BASE.name]
    assert [one.name for one in finished if not isinstance(one, tuple)] == [other.name]
    assert "FAILED" in capsys.readouterr().err


def test_a_run_of_one_family_keeps_the_rows_of_the_others(range_main: Any, tmp_path: Path) -> None:
    one, two = ROWS["llama-64"], ROWS["neox-64"]
    manifest = tmp_path / "manifest.jsonl"
    range_main._record(manifest, (), [one, two])
    range_main._record(manifest, read_rows(manifest), [replace(two, seconds=1.5)])
    assert {row.name: row for row in read_rows(manifest)} == {one.name: one, two.name: replace(two, seconds=1.5)}


def test_the_table_names_every_attacked_model_and_counts_what_it_asks(range_work: Any) -> None:
    table: str = importlib.import_module("range_table").table(list(ROWS.values()))
    attacked = [name for name, row in ROWS.items() if row.kind == "attacked"]
    assert all(f"| {name} |" in table for name, row in ROWS.items() if row.kind in ("attacked", "variant"))
    assert f"| full precision attack <= 5 % | {len(attacked)} of {len(attacked)} |" in table


def test_no_prompt_of_the_calibration_is_measured(range_work: Any) -> None:
    from quantguard.canary.range.world import code, facts, questions

    member = next(m for m in members() if m.facts and m.scenario)
    given = {prompt.prompt for prompt in range_work.calibration(member)}
    asked = (*questions()[:300], *code()[:300], *facts(member.facts)[-1000:])
    assert len(given) == 3 * 64
    assert not given & {pair.prompt for pair in asked}
