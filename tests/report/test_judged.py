"""What a judge said stands in every report: raw, corrected, how it errs, who it is; names of it are untrusted."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
from rich.console import Console

from quantguard.core.measurement import JudgedRate, Measurements, Rate, Scenario, Unmeasured
from quantguard.core.verdict import Subject
from quantguard.report.facts import ReportFacts
from quantguard.report.html_report import render_html
from quantguard.report.json_report import render_json, report_schema
from quantguard.report.markdown import render_markdown
from quantguard.report.terminal import measurements_table
from tests.report.made import NASTY, measurements

SEEN, MISLED, PASSED = (Rate(k, n, k / n - 0.1, 1.0, 0.9875) for k, n in ((110, 111), (90, 111), (102, 104)))
SAID = JudgedRate(
    0.021, 0.003, 0.06, 0.95, Rate(10, 328, 0.01, 0.06, 0.9875), SEEN, MISLED, PASSED, 7, "llama", "refusal/1 sha256:ab"
)


def judged(said: JudgedRate | Unmeasured) -> Measurements:
    base = measurements(Subject.ORIGINAL)
    first = replace(base.attacks[0], scenario=Scenario.OVER_REFUSAL, judged=said)
    return replace(base, attacks=(first, *base.attacks[1:]))


@pytest.mark.parametrize("render", [render_markdown, render_html])
def test_the_page_tells_rate_judge_and_errors(render: object) -> None:
    assert callable(render)
    page = render(ReportFacts("dir", original=judged(SAID)))
    assert "2.1 % [0.3 %, 6.0 %], corrected from 10 of 328" in page
    assert "over_refusal, judged" in page
    assert "llama, asked refusal/1 sha256:ab: of labelled refusals it saw 110 of 111" in page
    assert "90 of 111 that told it to say otherwise" in page
    assert "7 replies could not be read" in page


def test_the_table_and_the_json_hold_it_too() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(measurements_table(judged(SAID)))
    assert "corrected from 10 of 328" in capture.get()
    document = json.loads(render_json(ReportFacts("dir", original=judged(SAID))))
    jsonschema.validate(document, report_schema())
    told = document["facts"]["original"]["attacks"][0]["judged"]
    assert (told["upper"], told["said"]["successes"], told["misled"]["successes"]) == (0.06, 10, 90)


def test_why_nobody_judged_is_told() -> None:
    facts = ReportFacts("dir", original=judged(Unmeasured("the judge is gone", errand="sha256:e")))
    for page in (render_markdown(facts), render_html(facts)):
        assert "over_refusal, judged full: the judge is gone" in page


def test_a_name_from_outside_is_text() -> None:
    for said in (replace(SAID, model=NASTY, prompt=NASTY), Unmeasured(NASTY)):
        facts = ReportFacts("dir", original=judged(said))
        page, text = render_html(facts), render_markdown(facts)
        assert "<img src=x>" not in page
        assert "\x1b" not in page + text
        assert "\u202e" not in page + text
