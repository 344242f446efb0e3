"""What is said at the lines of a policy."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from quantguard.core.finding import Finding, Severity
from quantguard.core.remark import Level, Remark
from quantguard.core.verdict import GateOutcome, Outcome, Reason, Subject, Verdict
from quantguard.report.facts import ReportFacts
from quantguard.report.remarks import VERDICT, is_promotion, remarks
from quantguard.report.text import visible
from tests.report.made import (
    BOUNDARY,
    CLEAN,
    HELD,
    MALICIOUS,
    MET,
    PLACE,
    REPAIRED,
    UNMEASURED,
    VIOLATED,
    decision,
    hostile,
)

NOT_HARDENED = Reason("harden.mode", Outcome.VIOLATED, "not hardened", "only hardened models", "all files")


def levels(facts: ReportFacts) -> Counter[Level]:
    return Counter(remark.level for remark in remarks(facts))


def with_outcome(original: Verdict, hardened: Verdict | None, *reasons: Reason) -> ReportFacts:
    repaired = None if hardened is None else decision(Subject.HARDENED, hardened, *reasons)
    return replace(REPAIRED, outcome=GateOutcome(decision(Subject.ORIGINAL, original, *reasons), repaired))


def test_a_clean_model_gives_one_notice_and_no_more() -> None:
    (notice,) = remarks(CLEAN)
    assert notice == Remark(
        VERDICT, Level.NOTICE, "models:/clean/1: PROMOTE. The original may be promoted as it is.", None
    )
    assert is_promotion(notice)


def test_a_violated_rule_is_an_error_at_its_line() -> None:
    (error,) = remarks(MALICIOUS)
    assert (error.rule, error.level, error.place, error.subject) == (VIOLATED.rule, Level.ERROR, PLACE, "original nf4")
    assert error.message == f"models:/malicious/1, original: {VIOLATED.sentence()}"


def test_what_was_wrong_with_a_repaired_model_is_a_warning() -> None:
    assert levels(REPAIRED) == {Level.WARNING: 1, Level.NOTICE: 1}


def test_a_model_that_is_always_hardened_is_not_warned_about_for_that() -> None:
    outcome = GateOutcome(
        decision(Subject.ORIGINAL, Verdict.BLOCK, NOT_HARDENED), decision(Subject.HARDENED, Verdict.PROMOTE)
    )
    assert levels(replace(REPAIRED, outcome=outcome)) == {Level.NOTICE: 1}
    alone = GateOutcome(outcome.original, None)
    assert [r.rule for r in remarks(replace(REPAIRED, outcome=alone)) if r.level is Level.ERROR] == ["harden.mode"]


def test_could_not_tell_is_an_error_where_it_alone_keeps_a_model_back() -> None:
    assert levels(HELD) == {Level.ERROR: 1}
    assert HELD.outcome is not None
    unmeasured = replace(HELD.outcome.original, verdict=Verdict.BLOCK)  # as a policy with unmeasured: block says
    assert levels(replace(HELD, outcome=GateOutcome(unmeasured, None))) == {Level.ERROR: 1}
    blocked = with_outcome(Verdict.BLOCK, None, VIOLATED, UNMEASURED)
    assert levels(blocked) == {Level.ERROR: 1, Level.WARNING: 1}


@pytest.mark.parametrize(
    ("original", "hardened", "reasons"),
    list(product(Verdict, (None, *Verdict), [(), (MET,), (VIOLATED,), (UNMEASURED,), (VIOLATED, UNMEASURED, MET)])),
)
def test_what_is_not_promoted_has_an_error_and_what_is_has_none(
    original: Verdict, hardened: Verdict | None, reasons: tuple[Reason, ...]
) -> None:
    facts = with_outcome(original, hardened, *reasons)
    assert facts.outcome is not None
    promoted = facts.outcome.verdict is Verdict.PROMOTE
    assert (levels(facts)[Level.ERROR] == 0) is promoted
    assert levels(facts)[Level.NOTICE] == promoted


def test_findings_are_told_by_the_rule_that_they_break_and_by_nothing_else() -> None:
    many = replace(MALICIOUS, findings=(BOUNDARY,) * 9)
    assert remarks(many) == remarks(MALICIOUS)


def test_a_scan_alone_tells_its_findings() -> None:
    low = Finding("scan.odd", Severity.LOW, "w", "odd")
    told = remarks(ReportFacts("dir", findings=(low, replace(BOUNDARY, severity=Severity.MEDIUM), BOUNDARY)))
    assert [remark.level for remark in told] == [Level.ERROR, Level.WARNING, Level.NOTICE]
    assert told[0].message == "dir: weights pile up"
    assert told[0].subject == "layers.0.weight nf4"


def test_which_tensor_is_worst_does_not_make_another_remark() -> None:
    def subject(tensor: str) -> str:
        reason = Reason("scan.fail_on", Outcome.VIOLATED, "2 findings", "nothing", tensor)
        return remarks(with_outcome(Verdict.BLOCK, None, reason))[0].subject

    assert subject("layers.0.weight") == subject("layers.1.weight") == "original"


def test_messages_are_visible_and_whole_names_are_not_lost_to_long_ones() -> None:
    for remark in remarks(hostile()):
        assert remark.message == visible(remark.message, len(remark.message))
    long = replace(MALICIOUS, model="m" * 1_000_000)
    assert VIOLATED.sentence() in remarks(long)[0].message
