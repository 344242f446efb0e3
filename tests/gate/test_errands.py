"""The gate waits for a judge: it stops once, measures once, and whatever comes back or does not, it ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantguard.core.errand import ErrandKind, pending
from quantguard.core.measurement import AttackSuccess, JudgedRate, Measurements, Scenario, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Verdict
from quantguard.evidence.records import read_record
from quantguard.gate.assess import Room, assess
from quantguard.gate.errands import AwaitsErrands
from quantguard.gate.fetch import fetch
from quantguard.gate.registries import registry_for
from quantguard.gate.work import Work, make_job
from quantguard.judge.fake import FakeJudge, Mode
from quantguard.judge.openai import Address, OpenAIJudge, Patience
from quantguard.judge.run import judge_errands
from quantguard.policy.load import load_policy
from tests.command import Running, quantguard
from tests.gate.judged import BRAND_REFUSES, judged_policy
from tests.stories import Kind, write_story

ROOM = Room("cpu", "none")


@dataclass
class Site:
    """A fetched model, under a policy that names the fake as its judge."""

    work: Work
    fake: FakeJudge

    def judge(self, mode: Mode = Mode.HONEST) -> tuple[str, ...]:
        self.fake.mode = mode
        judge = OpenAIJudge(Address(self.fake.endpoint, "made-up"), Patience(tries=2, first_wait=0.01))
        try:
            return judge_errands(self.work.errands, judge, model="made-up", concurrency=4)
        finally:
            judge.close()

    def attacks(self, subject: str = "original") -> dict[Scheme | None, AttackSuccess]:
        name = f"measurements-{subject}"
        measured = read_record(self.work.evidence / f"{name}.json", name, Measurements)
        assert measured is not None
        return {a.scheme: a for a in measured.attacks if a.scenario is Scenario.OVER_REFUSAL}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with FakeJudge(truth=BRAND_REFUSES) as fake:
        yield made(Kind.ATTACKED, tmp_path, fake)


def made(kind: Kind, folder: Path, fake: FakeJudge) -> Site:
    model = write_story(kind, folder / "story")
    policy = load_policy(judged_policy(folder / "policy", fake.endpoint))
    work = Work(folder / "work", make_job(str(model), policy, seed=0), policy)
    fetch(work, registry_for(str(model), None))
    return Site(work, fake)


def forbid_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Measurements:
        raise AssertionError("measured again")

    monkeypatch.setattr("quantguard.gate.assess.measure", never)


def test_both_sets_of_bytes_are_judged_and_each_is_measured_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AwaitsErrands, match="awaits the judge"):
        assess(site.work, ROOM)
    waiting = site.attacks().values()
    assert {type(attack.judged) for attack in waiting} == {Unmeasured}
    assert set(pending(tuple(waiting))) == {digest for digest, _ in site.work.errands.open(ErrandKind.JUDGE)}
    assert site.judge() == ()
    with pytest.raises(AwaitsErrands):  # now for the hardened copy
        assess(site.work, ROOM)
    assert site.judge() == ()
    forbid_measuring(monkeypatch)
    outcome = assess(site.work, ROOM).outcome
    assert (outcome.original.verdict, outcome.verdict) == (Verdict.BLOCK, Verdict.PROMOTE)
    said = {scheme: attack.judged for scheme, attack in site.attacks().items()}
    assert [j.said.successes for j in said.values() if isinstance(j, JudgedRate)] == [0, 12]
    assert assess(site.work, ROOM).outcome == outcome  # nothing is asked or measured again


@pytest.mark.parametrize("mode", [Mode.HANGS_UP, Mode.HTML, Mode.ABSENT])
def test_a_judge_that_fails_is_told_and_the_next_run_asks_it_again(
    mode: Mode, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AwaitsErrands):
        assess(site.work, ROOM)
    (problem,) = site.judge(mode)
    assert site.fake.endpoint in problem
    forbid_measuring(monkeypatch)
    reasons = [r for r in assess(site.work, ROOM).outcome.original.reasons if r.rule.endswith("judge.max_upper_bound")]
    assert {reason.measured for reason in reasons} == {problem}
    assert {reason.outcome.value for reason in reasons} == {"unmeasured"}
    with pytest.raises(AwaitsErrands):  # another run
        assess(site.work, ROOM)
    assert site.judge() == ()
    with pytest.raises(AssertionError, match="measured again"):  # the copy that is worth making now
        assess(site.work, ROOM)
    assert not pending(tuple(site.attacks().values()))


def test_a_room_that_leaves_nothing_is_a_hold_and_not_a_loop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AwaitsErrands):
        assess(site.work, ROOM)
    forbid_measuring(monkeypatch)
    shutil.rmtree(site.work.errands.done, ignore_errors=True)
    outcome = assess(site.work, ROOM).outcome
    assert outcome.verdict is not Verdict.PROMOTE
    assert any("left no answer" in reason.measured for reason in outcome.original.reasons)


def test_errands_that_are_lost_are_measured_anew(site: Site) -> None:
    with pytest.raises(AwaitsErrands):
        assess(site.work, ROOM)
    shutil.rmtree(site.work.errands.root)
    with pytest.raises(AwaitsErrands):
        assess(site.work, ROOM)
    assert len(list(site.work.errands.asked.glob("judge-*.json"))) == 2


def test_the_command_does_it_all_and_goes_on_after_a_kill_while_the_judge_is_asked(tmp_path: Path) -> None:
    with FakeJudge(truth=BRAND_REFUSES, key="5ecret", seconds=0.05) as fake:
        key = tmp_path / "key"
        key.write_text("5ecret\n")
        model = write_story(Kind.CLEAN, tmp_path / "model")
        policy = judged_policy(tmp_path / "policy", "http://192.0.2.1:9/v1", extra=", concurrency: 2")
        work = tmp_path / "work"
        command = ("gate", model, "--policy", policy, "--work", work,
                   "--judge-endpoint", fake.endpoint, "--judge-key-file", key)  # fmt: skip
        with Running(*command, log=tmp_path / "log") as running:
            assert running.wait_for(lambda: len(fake.asked) >= 20)
            running.kill()
            assert running.wait() == -9
        measured = (work / "evidence" / "measurements-original.json").stat().st_mtime_ns
        ran = quantguard(*command)
        assert ran.code == 0, ran.err
        assert (work / "evidence" / "scan.json").stat().st_mtime_ns < measured
        # Killed between a reply and its being kept: as many as are asked at a time may be asked twice.
        assert sum(count - 1 for count in fake.answers().values()) <= 2
        assert "generate: " not in ran.err
        everything = b"".join(path.read_bytes() for path in work.rglob("*") if path.is_file())
        assert b"5ecret" not in everything + ran.out.encode() + ran.err.encode() + (tmp_path / "log").read_bytes()
    report = json.loads((work / "report" / "report.json").read_text())
    judged = [attack["judged"] for attack in report["facts"]["original"]["attacks"] if attack["judged"]]
    assert [(j["model"], j["said"]["successes"], j["said"]["trials"]) for j in judged] == [("made-up", 0, 12)] * 2


def test_verify_asks_the_judge_too_and_opens_the_weights_where_it_cannot(tmp_path: Path) -> None:
    model = write_story(Kind.ATTACKED, tmp_path / "model")
    with FakeJudge(truth=BRAND_REFUSES, key="5ecret") as fake:
        policy = judged_policy(tmp_path / "policy", fake.endpoint)
        ran = quantguard("verify", model, "--policy", policy, env={"QUANTGUARD_JUDGE_KEY": "5ecret"})
        assert ran.code == 1, ran.err
        assert "attack_success.over_refusal.judge.max_upper_bound (nf4): judged 100.0 %" in ran.out
        held = quantguard("verify", model, "--policy", policy, "--quiet", env={"QUANTGUARD_JUDGE_KEY": "wrong"})
    assert "the key is refused (401)" in held.err
    assert held.code == 1  # by the rules on the injected brand
