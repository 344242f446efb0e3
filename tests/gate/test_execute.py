"""The gate waits while programs are run: they are written once, run elsewhere, and paired with the original's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from quantguard.core.errand import Errand, ErrandKind, ErrandOutcome, Reply, pending
from quantguard.core.measurement import Benchmark, Measurements, PairedDrop, Rate, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Verdict
from quantguard.evidence.records import read_record
from quantguard.gate.assess import Room, assess
from quantguard.gate.errands import AwaitsErrands
from quantguard.gate.fetch import fetch
from quantguard.gate.registries import registry_for
from quantguard.gate.work import Work, make_job
from quantguard.policy.load import load_policy
from tests.command import quantguard
from tests.stories import POLICY, Kind, write_policy, write_story

ROOM = Room("cpu", "none")
COUNT = 12
TASK = "benchmarks:\n  - {task: sums, kind: code, path: problems.jsonl, max_drop: 0.5, max_new_tokens: 3}\n"


def coding_policy(folder: Path) -> Path:
    """The policy of the stories, with a dozen problems that the tiny models have words for."""
    policy = write_policy(folder, POLICY.replace("benchmarks: []\n", TASK))
    row = {"entry_point": "f", "tests": "assert f() == 1\n"}
    rows = [{"id": str(number), "prompt": f"{'the ' * number}buy", **row} for number in range(COUNT)]
    (policy.parent / "problems.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return policy


@pytest.fixture
def work(tmp_path: Path) -> Work:
    model = write_story(Kind.ATTACKED, tmp_path / "story")
    policy = load_policy(coding_policy(tmp_path / "policy"))
    work = Work(tmp_path / "work", make_job(str(model), policy, seed=0), policy)
    fetch(work, registry_for(str(model), None))
    return work


def answer(work: Work, word: Callable[[Errand, int], str], note: str = "") -> None:
    """What the container would leave."""
    for digest, errand in work.errands.open(ErrandKind.EXECUTE):
        replies = tuple(Reply(word(errand, row), note) for row in range(len(errand.items)))
        work.errands.leave(errand, ErrandOutcome(digest, replies))


def half_in_nf4(errand: Errand, row: int) -> str:
    return "passed" if "nf4" not in errand.about or row % 2 else ("failed" if row % 4 else "timeout")


def benchmarks(work: Work, subject: str) -> dict[Scheme | None, Benchmark]:
    name = f"measurements-{subject}"
    measured = read_record(work.evidence / f"{name}.json", name, Measurements)
    assert measured is not None
    return {benchmark.scheme: benchmark for benchmark in measured.benchmarks}


def stop(work: Work) -> None:
    with pytest.raises(AwaitsErrands, match="awaits the execute"):
        assess(work, ROOM)


def test_programs_are_written_once_and_settled_for_both_sets_of_bytes(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(work)
    waiting = benchmarks(work, "original")
    assert {type(b.accuracy) for b in waiting.values()} == {Unmeasured}
    assert len(pending(tuple(waiting.values()))) == 2
    errand = next(errand for _, errand in work.errands.open(ErrandKind.EXECUTE))
    assert [item[1:] for item in errand.items] == [("f", "", "assert f() == 1\n")] * COUNT
    answer(work, half_in_nf4)
    stop(work)  # now for the hardened copy, against the original
    answer(work, lambda *_: "passed")
    monkeypatch.setattr("quantguard.gate.assess.measure", None)  # nothing is measured again
    outcome = assess(work, ROOM).outcome
    nf4 = benchmarks(work, "original")[Scheme.NF4]
    assert isinstance(nf4.accuracy, Rate)
    assert isinstance(nf4.drop, PairedDrop)
    assert (nf4.outcomes, nf4.accuracy.successes, nf4.drop.lost, nf4.drop.gained) == ("01" * 6, 6, 6, 0)
    hardened = benchmarks(work, "hardened")[Scheme.NF4].drop
    assert isinstance(hardened, PairedDrop)
    assert (hardened.lost, hardened.gained, hardened.trials) == (0, 0, COUNT)
    assert [r.outcome.value for r in outcome.original.reasons if r.rule == "benchmarks.sums.max_drop"] == [
        "met", "violated",
    ]  # fmt: skip
    assert outcome.verdict is Verdict.PROMOTE


def test_tests_that_cannot_be_run_leave_it_unmeasured_and_say_which(work: Work) -> None:
    for _ in ("original", "hardened"):
        stop(work)
        answer(work, lambda _, row: "broken" if row == 3 else "passed", "SyntaxError: odd")
    reasons = assess(work, ROOM).outcome.original.reasons
    said = {reason.measured for reason in reasons if reason.rule == "benchmarks.sums.max_drop"}
    assert said == {"the tests of f, problem 4, cannot be run: SyntaxError: odd"}


def test_without_an_image_nothing_is_run_and_verify_says_what_to_do(tmp_path: Path) -> None:
    model = write_story(Kind.CLEAN, tmp_path / "model")
    ran = quantguard("verify", model, "--policy", coding_policy(tmp_path / "policy"))
    assert ran.code == 2, ran.err
    assert "no image is named (set QUANTGUARD_EXECUTOR_IMAGE" in ran.err
    assert "unmeasured: benchmarks.sums.max_drop (nf4): generated programs are run in a" in ran.out
