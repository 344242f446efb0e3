"""What is not over, or is a directory, is in no format more than it is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from junitparser import JUnitXml
from rich.console import Console

from quantguard.core.remark import Level
from quantguard.core.verdict import Verdict
from quantguard.report.facts import ReportFacts
from quantguard.report.remarks import VERDICT, remarks
from quantguard.report.terminal import gate_table
from quantguard.report.write import FORMATS
from tests.report.made import CLEAN, MALICIOUS, REPAIRED

WHY = "the registry did not answer"


@pytest.mark.parametrize("facts", [CLEAN, REPAIRED, MALICIOUS], ids=["clean", "repaired", "malicious"])
def test_a_job_that_is_not_over_is_held_in_every_format(facts: ReportFacts) -> None:
    unfinished = replace(facts, unfinished=WHY)
    document = json.loads(FORMATS["json"](unfinished))
    assert (document["verdict"], document["promoted"]) == ("HOLD", None)
    assert FORMATS["md"](unfinished).startswith(f"# HOLD: `{facts.model}`\n\n`{WHY}`\n")
    assert JUnitXml.fromstring(FORMATS["junit"](unfinished).encode()).errors == 1
    assert f"::error title={VERDICT}::{facts.model}: HOLD. {WHY}\n" in FORMATS["annotations"](unfinished)
    levels = {result["level"] for result in json.loads(FORMATS["sarif"](unfinished))["runs"][0]["results"]}
    assert "error" in levels
    assert Level.NOTICE not in {remark.level for remark in remarks(unfinished)}
    with (console := Console(width=120)).capture() as shown:
        console.print(gate_table([unfinished]))
    assert "HOLD" in shown.get()
    assert "PROMOTE" not in shown.get()


def test_a_directory_passes_only_as_it_is() -> None:
    repaired = replace(REPAIRED, registered=False)
    assert (repaired.verdict, repaired.promoted) == (Verdict.BLOCK, None)
    assert "::error" in FORMATS["annotations"](repaired)
    assert FORMATS["md"](repaired).startswith(
        f"# BLOCK: `{REPAIRED.model}`\n\nThe original is blocked; its hardened copy passes: use that one instead."
    )
    assert replace(CLEAN, registered=False).verdict is Verdict.PROMOTE


def test_an_original_that_could_not_be_measured_holds_a_directory_whose_copy_passes() -> None:
    assert REPAIRED.outcome is not None
    original = replace(REPAIRED.outcome.original, verdict=Verdict.HOLD)
    facts = replace(REPAIRED, registered=False, outcome=replace(REPAIRED.outcome, original=original))
    assert facts.verdict is Verdict.HOLD
