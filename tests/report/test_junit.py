"""JUnit XML, read back by a parser that is not the one that wrote it."""

from __future__ import annotations

import re
from xml.dom.minidom import Document, Element, parseString  # what we wrote ourselves

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantguard.core.verdict import GateOutcome, Outcome, Reason, Subject, Verdict
from quantguard.report.facts import ReportFacts
from quantguard.report.junit import render_junit
from quantguard.report.text import visible
from tests.report.made import BOUNDARY, CLEAN, HELD, MALICIOUS, MET, NASTY, REPAIRED, UNMEASURED, VIOLATED, decision

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read(facts: ReportFacts) -> Document:
    text = render_junit(facts)
    assert not _NOT_XML.search(text)
    return parseString(text.encode("utf-8"))  # noqa: S318


def suites(facts: ReportFacts) -> dict[str, tuple[int, int, int]]:
    """(tests, failures, errors) as the suite counts them; counted again from its cases."""
    counted = {}
    for suite in read(facts).getElementsByTagName("testsuite"):
        told = tuple(int(suite.getAttribute(key)) for key in ("tests", "failures", "errors"))
        seen = tuple(len(suite.getElementsByTagName(tag)) for tag in ("testcase", "failure", "error"))
        assert told == seen
        counted[suite.getAttribute("name")] = (told[0], told[1], told[2])
    return counted


def test_each_set_of_bytes_is_a_suite_and_each_reason_a_case() -> None:
    assert suites(CLEAN) == {"original": (1, 0, 0)}
    assert suites(REPAIRED) == {"original": (2, 1, 0), "hardened": (1, 0, 0)}
    assert suites(MALICIOUS) == {"original": (1, 1, 0)}
    assert suites(HELD) == {"original": (2, 0, 1)}


def test_a_case_is_named_by_rule_and_scheme() -> None:
    case: Element = read(MALICIOUS).getElementsByTagName("testcase")[0]
    assert (case.getAttribute("classname"), case.getAttribute("name")) == (VIOLATED.rule, "nf4")
    assert case.getElementsByTagName("failure")[0].getAttribute("message") == VIOLATED.sentence()


def test_the_whole_file_counts_too() -> None:
    outcome = GateOutcome(decision(Subject.ORIGINAL, Verdict.BLOCK, VIOLATED, UNMEASURED, MET), None)
    root = read(ReportFacts("m", outcome=outcome)).documentElement
    assert root is not None
    assert [root.getAttribute(key) for key in ("tests", "failures", "errors", "skipped")] == ["3", "1", "1", "0"]


def test_a_scan_alone_fails_for_each_finding_and_passes_without_one() -> None:
    assert suites(ReportFacts("dir", findings=(BOUNDARY, BOUNDARY))) == {"scan": (2, 2, 0)}
    assert suites(ReportFacts("dir", findings=())) == {"scan": (1, 0, 0)}
    assert suites(ReportFacts("dir")) == {}


@given(st.text(max_size=40) | st.sampled_from([NASTY, "]]>", "<a b='c'>&amp;\"", "\x00\ufffe\uffff\ud800", ""]))
@pytest.mark.parametrize("outcome", Outcome)
def test_any_text_is_held_whole(outcome: Outcome, text: str) -> None:
    reason = Reason(text, outcome, text, text, text)
    facts = ReportFacts(text, outcome=GateOutcome(decision(Subject.ORIGINAL, Verdict.BLOCK, reason), None))
    (case,) = read(facts).getElementsByTagName("testcase")
    assert case.getAttribute("name") == visible(text)
    held = case.toxml()
    assert ("<failure" in held, "<error" in held) == (outcome is Outcome.VIOLATED, outcome is Outcome.UNMEASURED)
