"""Waivers in every format: those in force with days left, those that are not in force first and loud."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta

import pytest
from junitparser import JUnitXml

from quantguard.core.remark import Level, Place
from quantguard.core.verdict import Decision, GateOutcome, Outcome, Reason, Subject, Verdict
from quantguard.core.waiver import Waiver
from quantguard.policy.waivers import apply_waivers
from quantguard.report.facts import ReportFacts, WaiversUsed
from quantguard.report.remarks import remarks
from quantguard.report.waived import lines
from quantguard.report.write import FORMATS
from tests.policy.full import made
from tests.report.made import CLEAN, NASTY, PLACE, POLICY, VIOLATED

TODAY = date(2026, 11, 27)
BYTES = "sha256:" + "a" * 64
OTHER_RULE = replace(VIOLATED, rule="benchmarks.facts.max_drop", where="int8")
LINE = Place("waivers.yaml", 3, 5, 3, 9)


def waiver(about: Reason = VIOLATED, days: int = 34, **changes: str) -> Waiver:
    rule, scheme = about.waived_as
    whole = Waiver(rule, BYTES, scheme, "a known false alarm", "ann", (TODAY + timedelta(days=days)).isoformat())
    return replace(whole, **changes)


def facts(*waivers: Waiver, reasons: tuple[Reason, ...] = (VIOLATED,)) -> ReportFacts:
    decided = Decision(Subject.ORIGINAL, Verdict.BLOCK, reasons)
    decided = apply_waivers(decided, waivers, made(waivers=None), model_digest=BYTES, today=TODAY)
    used = WaiversUsed("waivers.yaml", "sha256:ww", tuple((one, LINE) for one in waivers))
    return replace(CLEAN, policy=POLICY, outcome=GateOutcome(decided, None), waivers=used)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_lists_a_waiver_in_force_with_its_days_left(name: str) -> None:
    text = FORMATS[name](facts(waiver()))
    if name == "json":
        (told,) = json.loads(text)["facts"]["outcome"]["original"]["waivers"]
        assert (told["state"], told["days_left"]) == ("in force", 34)
    else:
        assert "34 days left (until 2026-12-31)" in text


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"json"}))
def test_every_format_is_loud_about_one_that_has_expired(name: str) -> None:
    text = FORMATS[name](facts(waiver(days=-3)))
    assert "EXPIRED 3 days ago, on 2026-11-24" in text


def test_a_pass_by_a_waiver_says_so_where_the_verdict_is_told() -> None:
    told = FORMATS["md"](facts(waiver()))
    assert "The original may be promoted as it is, by 1 waiver until 2026-12-31." in told
    assert told.index("## Waivers") < told.index("## Why")


def test_the_loud_ones_come_first() -> None:
    many = facts(
        waiver(), waiver(OTHER_RULE, days=3), waiver(days=-1, scheme="int8"), waiver(days=99, scheme="fp4"),
        waiver(model_digest="sha256:" + "b" * 64),
    )  # fmt: skip
    assert [line.split(",")[0].split(" ")[0] for line in lines(many)] == ["EXPIRED", "REFUSED", "unused", "in", "1"]


def test_an_expired_one_is_an_error_an_unused_one_a_warning_and_one_in_force_a_notice_each_at_its_line() -> None:
    told = {
        remark.rule: remark for remark in remarks(facts(waiver(), waiver(OTHER_RULE), waiver(days=-1, scheme="fp4")))
    }
    levels = {rule: (remark.level, remark.place) for rule, remark in told.items()}
    assert levels == {
        "waiver.expired": (Level.ERROR, LINE),
        "waiver.unused": (Level.WARNING, LINE),
        VIOLATED.rule: (Level.NOTICE, PLACE),
        "gate.verdict": (Level.NOTICE, None),
    }


def test_in_sarif_what_is_waived_is_suppressed_and_nothing_else_is() -> None:
    run = json.loads(FORMATS["sarif"](facts(waiver(), reasons=(VIOLATED, OTHER_RULE))))["runs"][0]
    suppressed = {result["ruleId"]: result.get("suppressions") for result in run["results"]}
    justification = "approved by ann until 2026-12-31: a known false alarm"
    accepted = [{"kind": "external", "status": "accepted", "justification": justification}]
    assert suppressed == {VIOLATED.rule: accepted, OTHER_RULE.rule: None}


def test_waivers_for_other_bytes_open_no_alert() -> None:
    other = facts(waiver(model_digest="sha256:" + "b" * 64))
    results = json.loads(FORMATS["sarif"](other))["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == [VIOLATED.rule]
    assert "1 of the waivers in waivers.yaml are for other bytes than these" in FORMATS["annotations"](other)


@pytest.mark.parametrize(
    ("days", "reasons", "ends"),
    [
        (34, (VIOLATED,), {"skipped": 1, "failures": 0}),
        (-3, (VIOLATED,), {"skipped": 0, "failures": 2}),  # the rule, and the waiver
        (-3, (replace(VIOLATED, outcome=Outcome.MET),), {"skipped": 1, "failures": 0}),
    ],
)
def test_in_junit_a_waived_rule_is_skipped_and_an_expired_waiver_fails_what_does_not_pass_without_it(
    days: int, reasons: tuple[Reason, ...], ends: dict[str, int]
) -> None:
    verdict = Verdict.BLOCK if reasons[0].outcome is Outcome.VIOLATED else Verdict.PROMOTE
    one = facts(waiver(days=days), reasons=reasons)
    if verdict is Verdict.PROMOTE and one.outcome is not None:
        one = replace(one, outcome=replace(one.outcome, original=replace(one.outcome.original, verdict=verdict)))
    document = JUnitXml.fromstring(FORMATS["junit"](one).encode())
    assert {"skipped": document.skipped, "failures": document.failures} == ends


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"json"}))
def test_what_is_written_in_a_waiver_acts_nowhere(name: str) -> None:
    nasty = waiver(reason=NASTY, approver=NASTY)
    given = facts(*(replace(nasty, scheme=f"s{n}") for n in range(80)), nasty)
    text = FORMATS[name](given)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script" not in text.replace("`<script", "") or name == "md"
