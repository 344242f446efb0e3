"""The report as JUnit XML: a suite for each set of bytes, a case for each rule and what it was applied to.

A met rule passes, a violated one is a failure, an unmeasured one an error, a waived one skipped; waivers have a suite.
The original of a hardened and promoted model keeps its failures here: what to do about them is said by the exit code.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import assert_never

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from quantguard.core.finding import Finding
from quantguard.core.verdict import Decision, Outcome, Reason
from quantguard.report.facts import ReportFacts
from quantguard.report.summary import worst_first
from quantguard.report.text import visible
from quantguard.report.waived import junit_cases, junit_skipped

_TEXT = 1000  # characters of a sentence


def render_junit(facts: ReportFacts) -> str:
    """The whole XML file. A report without a verdict has a suite of what its scan found."""
    document = JUnitXml(f"QuantGuard {visible(facts.model)}")
    outcome = facts.outcome
    if outcome is not None:
        for decision in (outcome.original, outcome.hardened):
            if decision is not None:
                document.add_testsuite(_suite(decision.subject.value, _cases(decision)))
        if waivers := junit_cases(facts):
            document.add_testsuite(_suite("waivers", waivers))
        if facts.unfinished:
            document.add_testsuite(_suite("gate", [_unfinished(facts.unfinished)]))
    elif facts.findings is not None:
        document.add_testsuite(_suite("scan", _found(facts.findings)))
    document.update_statistics()  # type: ignore[no-untyped-call]  # untyped in junitparser
    written = io.BytesIO()
    document.write(written)
    return written.getvalue().decode("utf-8") + "\n"


def _suite(name: str, cases: Iterable[TestCase]) -> TestSuite:
    suite = TestSuite(name)
    suite.add_testcases(list(cases))
    return suite


def _cases(decision: Decision) -> Iterable[TestCase]:
    return (_case(decision, reason) for reason in decision.reasons)


def _case(decision: Decision, reason: Reason) -> TestCase:
    case = TestCase(visible(reason.where), classname=visible(reason.rule))
    sentence = visible(reason.sentence(), _TEXT)
    match reason.outcome:
        case Outcome.MET:
            case.system_out = sentence
        case Outcome.VIOLATED:
            case.result = [Failure(sentence, reason.outcome.value)]
        case Outcome.UNMEASURED:
            case.result = [Error(sentence, reason.outcome.value)]
        case Outcome.WAIVED:
            case.result = [junit_skipped(decision, reason)]
        case _:
            assert_never(reason.outcome)
    return case


def _unfinished(what: str) -> TestCase:
    case = TestCase("finished", classname="gate")
    case.result = [Error(visible(what, _TEXT), "unfinished")]
    return case


def _found(findings: Iterable[Finding]) -> Iterable[TestCase]:
    cases = [_finding(finding) for finding in worst_first(findings)]
    return cases or [TestCase("every file", classname="scan")]


def _finding(finding: Finding) -> TestCase:
    case = TestCase(visible(finding.where), classname=visible(finding.rule))
    case.result = [Failure(visible(finding.message, _TEXT), finding.severity.value)]
    return case
