"""What comes back from another room: only what fits what was asked; from anything else nothing is concluded."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from quantguard.core.errand import MOST_NOTE, Answered, Errand, ErrandKind, ErrandOutcome, Reply, pending
from quantguard.core.errors import EvidenceError
from quantguard.core.measurement import AttackSuccess, Environment, Measurements, Scenario, Unmeasured
from quantguard.core.verdict import Subject
from quantguard.evidence.errands import Errands, errand_digest

ERRAND = Errand(ErrandKind.JUDGE, "over_refusal nf4", (("model", "m"),), (("one",), ("two\u2028\x00",)))
REPLIES = (Reply("yes"), Reply("no", "a note"))


def asked(root: Path, errand: Errand = ERRAND) -> tuple[Errands, str]:
    errands = Errands(root / "errands")
    return errands, errands.ask(errand)


def why(found: Answered | Unmeasured, digest: str) -> str:
    assert isinstance(found, Unmeasured)
    assert found.errand == digest  # so that it can still be settled
    return found.reason


def test_what_fits_is_taken_and_is_open_no_more(tmp_path: Path) -> None:
    errands, digest = asked(tmp_path)
    assert errands.open(ErrandKind.JUDGE) == ((digest, ERRAND),)
    assert why(errands.answered(digest), digest) == (
        "the judge left no answer (run --stage judge, then --stage assess)"
    )
    errands.leave(ERRAND, ErrandOutcome(digest, REPLIES))
    assert errands.answered(digest) == Answered(ERRAND, REPLIES)
    assert errands.open(ErrandKind.JUDGE) == ()


@pytest.mark.parametrize(
    "outcome",
    [
        ErrandOutcome("sha256:" + "0" * 64, REPLIES),
        ErrandOutcome("", REPLIES[:1]),
        ErrandOutcome("", (*REPLIES, Reply("no"))),
        ErrandOutcome("", (Reply("yes"), Reply("maybe"))),
        ErrandOutcome("", (Reply("yes"), Reply("no", "n" * (MOST_NOTE + 1)))),
        ErrandOutcome("", REPLIES, "and a problem"),
    ],
)
def test_what_does_not_fit_is_unusable(outcome: ErrandOutcome, tmp_path: Path) -> None:
    errands, digest = asked(tmp_path)
    path = errands.done / next(errands.asked.glob("judge-*.json")).name
    errands.leave(ERRAND, replace(outcome, errand=digest))
    if outcome.errand:  # of another errand, under the name of this one
        text = path.read_text().replace(digest, outcome.errand)
        path.write_text(text)
    assert "unusable" in why(errands.answered(digest), digest)
    assert errands.open(ErrandKind.JUDGE) == ((digest, ERRAND),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'{"schema": "quantguard.errand-outcome/2", "body": {}}',
        b'{"schema": "quantguard.errand-outcome/1", "body": {"errand": 1, "replies": []}}',
        b'{"schema": "quantguard.errand-outcome/1", "body": {"errand": "", "replies": [], "more": 1}}',
        b'{"schema": "quantguard.errand-outcome/1", "body": {"errand": "", "replies": [["yes", NaN]]}}',
        b'{"schema": "quantguard.errand-outcome/1", "body": ' + b"[" * 200_000,
        b"\xff\xfe",
        b"9" * 5000,
    ],
)
def test_no_bytes_break_it(content: bytes, tmp_path: Path) -> None:
    errands, digest = asked(tmp_path)
    errands.done.mkdir()
    (errands.done / next(errands.asked.glob("judge-*.json")).name).write_bytes(content)
    assert "unusable" in why(errands.answered(digest), digest)


def test_nothing_but_an_ordinary_file_is_opened(tmp_path: Path) -> None:
    errands, digest = asked(tmp_path)
    errands.leave(ERRAND, ErrandOutcome(digest, REPLIES))
    path = errands.done / next(errands.asked.glob("judge-*.json")).name
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    assert "not an ordinary file" in why(errands.answered(digest), digest)
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever
    assert "not an ordinary file" in why(errands.answered(digest), digest)


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    errands, digest = asked(tmp_path)
    errands.leave(ERRAND, ErrandOutcome(digest, REPLIES))
    os.truncate(errands.done / next(errands.asked.glob("judge-*.json")).name, 1 << 40)
    assert "larger than" in why(errands.answered(digest), digest)


def test_a_problem_is_told_and_asked_again(tmp_path: Path) -> None:
    errands, digest = asked(tmp_path)
    errands.leave(ERRAND, ErrandOutcome(digest, (), "nobody is there"))
    assert why(errands.answered(digest), digest) == "nobody is there"
    assert errands.open(ErrandKind.JUDGE) == ((digest, ERRAND),)


def test_what_was_changed_after_it_was_asked_is_not_what_was_asked(tmp_path: Path) -> None:
    errands, digest = asked(tmp_path)
    path = next(errands.asked.glob("judge-*.json"))
    path.write_text(path.read_text().replace('"one"', '"another"'))
    assert "gone" in why(errands.answered(digest), digest)
    with pytest.raises(EvidenceError, match="not an errand"):
        errands.open(ErrandKind.JUDGE)


@pytest.mark.parametrize("digest", ["", "sha256:", "../../etc/passwd", "sha256:" + "a" * 10_000, "sha256:\0"])
def test_no_digest_leads_out_of_the_directory(digest: str, tmp_path: Path) -> None:
    errands, _ = asked(tmp_path)
    assert errands.errand(digest) is None
    assert isinstance(errands.answered(digest), Unmeasured)


def test_an_equal_errand_has_an_equal_digest_and_one_file(tmp_path: Path) -> None:
    errands, digest = asked(tmp_path)
    assert errands.ask(replace(ERRAND)) == digest == errand_digest(ERRAND)
    assert errands.ask(replace(ERRAND, about="else")) != digest
    assert len(list(errands.asked.iterdir())) == 2
    plain = json.loads(next(errands.asked.glob(f"*{digest[7:]}*")).read_text())
    assert (plain["schema"], plain["inputs"]) == ("quantguard.errand/1", digest)


def test_what_is_awaited_grows_until_it_is_forgotten_and_nothing_else_stays_asked(tmp_path: Path) -> None:
    errands, digest = asked(tmp_path)
    stale = errands.ask(replace(ERRAND, about="of a measurement that was made again"))
    assert errands.await_([digest]).kinds == (ErrandKind.JUDGE,)
    assert errands.errand(stale) is None
    later = errands.ask(replace(ERRAND, about="hardened"))
    assert errands.await_([later]).errands == (digest, later)
    assert errands.errand(digest) == ERRAND
    errands.forget_awaited()
    assert errands.awaited() is None


def test_every_figure_that_awaits_something_is_found_wherever_it_stands() -> None:
    attack = AttackSuccess(Scenario.OVER_REFUSAL, None, Unmeasured("no"), None, "", judged=Unmeasured("", errand="a"))
    attacks = (attack, replace(attack, rate=Unmeasured("", errand="b")), attack)
    measured = Measurements(Subject.ORIGINAL, "", attacks, (), Environment("cpu", 0, ()))
    assert pending(measured) == ("a", "b")
    assert pending((None, 3, "x", Unmeasured("for good"))) == ()
