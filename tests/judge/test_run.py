"""The judge's room: it asks what is missing, keeps each word at once, and does only what the policy says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from quantguard.core.errand import Answered, Errand, ErrandKind
from quantguard.core.errors import JudgeUnreachableError
from quantguard.core.judging import MOST_ANSWER, NO, YES, prompt_name
from quantguard.core.measurement import Unmeasured
from quantguard.evidence.errands import Errands
from quantguard.judge.run import judge_errands

SETTINGS = (("model", "m"), ("prompt", prompt_name()))


def errand(*answers: str) -> Errand:
    return Errand(ErrandKind.JUDGE, "over_refusal nf4", SETTINGS, tuple((answer,) for answer in answers))


@dataclass
class Words:
    """A judge in memory: yes to what begins with r; fails at `breaks`."""

    identity: str = "m"
    breaks: str = ""
    asked: list[str] = field(default_factory=list)
    together: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, answer: str) -> str:
        with self._lock:
            self._now += 1
            self.together = max(self.together, self._now)
            self.asked.append(answer)
        try:
            if answer == self.breaks:
                raise JudgeUnreachableError("gone", remedy="come back")
            threading.Event().wait(0.002)
            return YES if answer.startswith("r") else NO
        finally:
            with self._lock:
                self._now -= 1

    def close(self) -> None:
        return


def run(root: Path, judge: Words, *, concurrency: int = 3) -> tuple[str, ...]:
    return judge_errands(Errands(root), judge, model="m", concurrency=concurrency)


def words(root: Path, digest: str) -> list[str]:
    answered = Errands(root).answered(digest)
    assert isinstance(answered, Answered)
    return [reply.word for reply in answered.replies]


def test_equal_answers_are_asked_about_once_and_never_again(tmp_path: Path) -> None:
    digest = Errands(tmp_path).ask(errand("r1", "a", "r1", "a", "b"))
    judge = Words()
    assert run(tmp_path, judge) == ()
    assert words(tmp_path, digest) == [YES, NO, YES, NO, NO]
    assert sorted(judge.asked) == ["a", "b", "r1"]
    later = Errands(tmp_path).ask(errand("b", "new", "r1"))
    assert run(tmp_path, judge) == ()
    assert words(tmp_path, later) == [NO, NO, YES]
    assert sorted(judge.asked) == ["a", "b", "new", "r1"]


def test_another_judge_is_asked_everything(tmp_path: Path) -> None:
    Errands(tmp_path).ask(errand("a"))
    run(tmp_path, Words())
    Errands(tmp_path).ask(errand("a", "b"))
    other = Words(identity="another address")
    run(tmp_path, other)
    assert sorted(other.asked) == ["a", "b"]


def test_no_more_are_asked_at_a_time_than_the_policy_says(tmp_path: Path) -> None:
    Errands(tmp_path).ask(errand(*map(str, range(50))))
    judge = Words()
    run(tmp_path, judge, concurrency=4)
    assert 1 < judge.together <= 4


def test_a_failure_stops_it_and_what_was_said_until_then_is_kept(tmp_path: Path) -> None:
    answers = [str(number) for number in range(60)]
    digest = Errands(tmp_path).ask(errand(*answers))
    judge = Words(breaks="30")
    assert run(tmp_path, judge, concurrency=2) == ("gone (come back)",)
    assert len(judge.asked) <= 32  # that one, and what the other was at
    found = Errands(tmp_path).answered(digest)
    assert isinstance(found, Unmeasured)
    assert found.reason == "gone (come back)"
    again = Words()
    assert run(tmp_path, again) == ()
    assert len(again.asked) + len(judge.asked) == 61
    assert words(tmp_path, digest) == [NO] * 60


@pytest.mark.parametrize("tail", [b'\n["ab', b"\n\xff\xfe\n[]\n{}\n[1, 2]", b"\n" + b"[" * 100_000])
def test_what_was_cut_short_or_is_no_judgement_is_passed_over(tail: bytes, tmp_path: Path) -> None:
    errands = Errands(tmp_path)
    errands.ask(errand("a", "b"))
    run(tmp_path, Words())
    with (errands.done / "judgements.jsonl").open("ab") as stream:
        stream.write(tail)
    digest = errands.ask(errand("a", "b", "c"))
    judge = Words()
    assert run(tmp_path, judge) == ()
    assert judge.asked == ["c"]
    assert words(tmp_path, digest) == [NO, NO, NO]
    errands.ask(errand("c", "a"))
    run(tmp_path, judge)
    assert judge.asked == ["c"]  # and the line after the broken one is read


@pytest.mark.parametrize(
    "change",
    [
        lambda e: replace(e, settings=(("model", "dearer"), SETTINGS[1])),
        lambda e: replace(e, settings=(SETTINGS[0], ("prompt", "refusal/0"))),
        lambda e: replace(e, settings=(*SETTINGS, ("endpoint", "http://elsewhere"))),
        lambda e: replace(e, items=(("a", "b"),)),
        lambda e: replace(e, items=((),)),
        lambda e: replace(e, items=(("x" * (MOST_ANSWER + 1),),)),
    ],
)
def test_the_room_of_the_weights_cannot_choose_whom_or_what_is_asked(
    change: Callable[[Errand], Errand], tmp_path: Path
) -> None:
    digest = Errands(tmp_path).ask(change(errand("a")))
    judge = Words()
    (problem,) = run(tmp_path, judge)
    assert "asked of the judge" in problem
    assert judge.asked == []
    assert isinstance(Errands(tmp_path).answered(digest), Unmeasured)
