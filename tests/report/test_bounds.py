"""A job summary above 1 MiB is dropped whole, so a report stays below whatever the facts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.core.measurement import Environment, Measurements, Unmeasured
from quantguard.core.verdict import GateOutcome, Outcome, Reason, Subject, Verdict
from quantguard.report.facts import PolicyUsed, ReportFacts
from quantguard.report.markdown import render_markdown
from tests.report.made import BOUNDARY, MALICIOUS, REPAIRED, decision, hostile, measurements

LIMIT = 900 * 1024
MANY = 100_000
LONG = "\U000e0041" * 1_000_000  # a character that is shown as ten
BASE = measurements(Subject.ORIGINAL)


def told(facts: ReportFacts) -> str:
    text = render_markdown(facts)
    assert len(text.encode("utf-8")) < LIMIT
    assert text.startswith("# BLOCK: `")
    assert "**original: BLOCK**" in text
    assert "- violated, `" in text
    assert "## How to reproduce\n\n    quantguard gate " in text
    return text


def test_many_of_everything() -> None:
    benchmarks = tuple(replace(BASE.benchmarks[1], task=f"task-{number}") for number in range(MANY))
    attacks = tuple(replace(BASE.attacks[0], probe_set=f"sha256:{number}") for number in range(MANY))
    facts = replace(
        MALICIOUS,
        findings=tuple(replace(BOUNDARY, where=f"layers.{number}.weight") for number in range(MANY)),
        original=replace(BASE, benchmarks=benchmarks, attacks=attacks),
        registry_events=tuple(map(str, range(MANY))),
    )
    text = told(facts)
    assert f"and {MANY - 50} more" in text
    assert "Left out" not in text


def test_a_megabyte_of_a_name_everywhere() -> None:
    reason = Reason(LONG, Outcome.VIOLATED, LONG, LONG, LONG)
    one = replace(BASE, environment=Environment(LONG, 0, ((LONG, LONG),)))
    benchmarks = tuple(replace(BASE.benchmarks[1], task=f"{n}{LONG}") for n in range(60))
    attacks = tuple(replace(BASE.attacks[0], probe_set=f"{n}{LONG}", examples=(LONG,) * 3) for n in range(60))
    unmeasured = tuple(replace(BASE.benchmarks[1], drop=Unmeasured(f"{n}{LONG}")) for n in range(60))
    blocked = decision(Subject.ORIGINAL, Verdict.BLOCK, *(reason,) * 60)
    facts = ReportFacts(
        LONG,
        LONG,
        PolicyUsed(LONG, LONG, LONG, LONG),
        GateOutcome(blocked, replace(blocked, subject=Subject.HARDENED)),
        (replace(BOUNDARY, rule=LONG, where=LONG, message=LONG),) * 60,
        replace(one, benchmarks=(*benchmarks, *unmeasured), attacks=attacks),
        None,
        replace(REPAIRED.hardening, method=LONG, losses=((LONG, 0.0),) * 60) if REPAIRED.hardening else None,
        (LONG,) * 60,
        LONG,
        LONG,
    )
    text = told(facts)
    assert "Left out, there is no room for it here: the JSON report holds it." in text
    assert text.index("Left out") > text.index("## Attack success rate")


def test_nothing_is_left_out_of_an_ordinary_report() -> None:
    for facts in (REPAIRED, MALICIOUS, hostile()):
        assert "Left out" not in render_markdown(facts)


@pytest.mark.parametrize("subject", list(Subject))
@given(st.text(max_size=30), st.integers(0, 300), st.integers(0, 3000))
@settings(max_examples=25, deadline=None)
def test_any_text_repeated_stays_below(subject: Subject, text: str, count: int, length: int) -> None:
    name = text * length
    reason = Reason(name, Outcome.VIOLATED, name, name, name)
    measured = Measurements(
        subject,
        name,
        tuple(replace(BASE.attacks[1], rate=Unmeasured(f"{n}{name}"), probe_set=f"{n}{name}") for n in range(count)),
        tuple(replace(BASE.benchmarks[1], task=f"{n}{name}") for n in range(count)),
        Environment(name, 0, ((name, name),)),
    )
    facts = replace(
        MALICIOUS,
        model=name,
        outcome=GateOutcome(decision(Subject.ORIGINAL, Verdict.BLOCK, *(reason,) * (count + 1)), None),
        original=measured,
        findings=(replace(BOUNDARY, where=name, message=name),) * count,
        registry_events=(name,) * count,
    )
    told(facts)
