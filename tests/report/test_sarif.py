"""SARIF against the standard's own schema, and against what GitHub code scanning asks for beside it.

`sarif-schema-2.1.0.json` is the schema of SARIF 2.1.0 with errata 01, under the id that OASIS gives it,
without its descriptions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantguard.core.remark import Level, Place, Remark
from quantguard.report.facts import ReportFacts
from quantguard.report.rules import Rule
from quantguard.report.sarif import MOST_BYTES, MOST_RESULTS, render_sarif
from quantguard.report.write import FORMATS
from tests.report.made import BOUNDARY, CLEAN, HELD, MALICIOUS, NASTY, PLACE, REPAIRED, hostile

SCHEMA = json.loads((Path(__file__).parent / "sarif-schema-2.1.0.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
ERROR = Remark("scan.fail_on", Level.ERROR, "weights pile up", PLACE, "original")
TEXT = st.text(max_size=40) | st.sampled_from(
    [NASTY, "models:/a/1", "file:///x", "{0}", "[a](http://x)", "", "..", "/"]
)
NUMBER = st.integers(-3, 99)
PLACES = st.none() | st.builds(Place, TEXT, NUMBER, NUMBER, NUMBER, NUMBER)


def run(remarks: Sequence[Remark], about: str = "m") -> Any:
    """The only run of a file that is held to the schema and to GitHub's wishes."""
    return checked(render_sarif(remarks, about=about))


def checked(text: str) -> Any:
    document = json.loads(text)
    VALIDATOR.validate(document)
    (only,) = document["runs"]
    assert re.fullmatch(r"quantguard/[^/]+/", only["automationDetails"]["id"])
    rules = only["tool"]["driver"]["rules"]
    assert all(rule["help"]["text"] and rule["shortDescription"] and rule["fullDescription"] for rule in rules)
    for result in only["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        where = result["locations"][0]["physicalLocation"]
        check_uri(where["artifactLocation"]["uri"])
        check_region(**where["region"])
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in only["results"]]
    assert len(set(prints)) == len(prints)
    return only


def check_uri(uri: str) -> None:
    parts = urlsplit(uri)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
    assert uri.isascii()
    assert not uri.startswith("/")
    assert all(segment not in {"", ".", ".."} for segment in uri.split("/"))


def check_region(*, startLine: int, startColumn: int, endLine: int, endColumn: int) -> None:  # noqa: N803
    assert min(startLine, startColumn, endLine, endColumn) >= 1
    assert (startLine, startColumn) <= (endLine, endColumn)


def print_of(remark: Remark, about: str = "m") -> str:
    return str(run([remark], about)["results"][0]["partialFingerprints"]["primaryLocationLineHash"])


@pytest.mark.parametrize(
    ("facts", "levels"),
    [
        (CLEAN, []),
        (HELD, ["error"]),
        (MALICIOUS, ["error"]),
        (REPAIRED, ["warning"]),
        (ReportFacts("dir", findings=(BOUNDARY,)), ["error"]),
        (ReportFacts("dir"), []),
    ],
)
def test_every_report_is_valid_and_only_what_is_wrong_is_an_alert(facts: ReportFacts, levels: list[str]) -> None:
    only = checked(FORMATS["sarif"](facts))
    assert [result["level"] for result in only["results"]] == levels


def test_a_result_is_at_the_line_of_the_policy() -> None:
    (result,) = run([ERROR])["results"]
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "policies/canary.yaml"},
        "region": {"startLine": 20, "startColumn": 22, "endLine": 20, "endColumn": 26},
    }


@given(st.lists(st.builds(Remark, TEXT, st.sampled_from(Level), TEXT, PLACES, TEXT), max_size=6), TEXT)
def test_no_text_and_no_place_makes_a_file_that_is_refused(remarks: list[Remark], about: str) -> None:
    only = run(remarks, about)
    assert len(only["results"]) == len(remarks)
    ranks = [("error", "warning", "note").index(result["level"]) for result in only["results"]]
    assert ranks == sorted(ranks)
    for result in only["results"]:
        assert not re.search(r"\]\(|\{\d+\}", result["message"]["text"])


def test_hostile_facts_make_a_valid_file() -> None:
    assert len(checked(FORMATS["sarif"](hostile()))["results"]) == 60


@pytest.mark.parametrize(
    ("file", "uri", "line"),
    [
        ("policies/a b#c?.yaml", "policies/a%20b%23c%3F.yaml", 20),
        ("./policies//x.yaml", "policies/x.yaml", 20),
        ("models:/m/1", "models%3A/m/1", 20),
        ("/etc/policies/x.yaml", "x.yaml", 1),
        ("../x.yaml", "x.yaml", 1),
        ("a/../../x.yaml", "x.yaml", 1),
        ("//host/share", "share", 1),
        ("..", "quantguard", 1),
        ("/", "quantguard", 1),
        ("", "quantguard", 1),
    ],
)
def test_a_file_is_named_within_the_repository(file: str, uri: str, line: int) -> None:
    where = run([replace(ERROR, place=replace(PLACE, file=file))])["results"][0]["locations"][0]["physicalLocation"]
    assert where["artifactLocation"]["uri"] == uri
    assert where["region"]["startLine"] == line


def test_a_remark_about_no_file_is_shown_all_the_same() -> None:
    (result,) = run([replace(ERROR, place=None)])["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "quantguard"


def test_a_fingerprint_survives_edits_of_the_policy_and_other_figures() -> None:
    moved = replace(ERROR, place=replace(PLACE, line=99, end_line=99), message="3 of 100", level=Level.WARNING)
    assert print_of(moved) == print_of(ERROR)
    others = [replace(ERROR, subject="hardened"), replace(ERROR, rule="harden.mode")]
    assert len({print_of(ERROR), print_of(ERROR, "other"), *map(print_of, others)}) == 4


def test_an_alert_is_of_a_model_not_of_its_version() -> None:
    one, two = (json.loads(FORMATS["sarif"](replace(MALICIOUS, model=f"models:/a b/{n}")))["runs"][0] for n in (1, 2))
    assert one["automationDetails"] == two["automationDetails"] == {"id": "quantguard/a%20b/"}
    fingerprints = [r["results"][0]["partialFingerprints"] for r in (one, two)]
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.parametrize("model", ["models:/m/latest", "s3://bucket/m", "../m", NASTY, "m" * 1_000_000, "", "/"])
def test_any_name_makes_one_segment_of_the_category(model: str) -> None:
    only = checked(FORMATS["sarif"](replace(MALICIOUS, model=model)))
    assert len(only["automationDetails"]["id"]) < 512


def test_long_names_that_begin_alike_are_kept_apart() -> None:
    ids = {run([], "m" * 5000 + end)["automationDetails"]["id"] for end in "ab"}
    assert len(ids) == 2


@pytest.mark.parametrize(("level", "least", "below"), [("error", 7, 10.1), ("warning", 4, 7), ("notice", 0.1, 4)])
@pytest.mark.parametrize("rule", ["attack_success.over_refusal.max_upper_bound", "scan.fail_on", "check.looser", ""])
def test_severity_follows_the_level(rule: str, level: str, least: float, below: float) -> None:
    (told,) = run([Remark(rule, Level(level), "x")])["tool"]["driver"]["rules"]
    assert least <= float(told["properties"]["security-severity"]) < below


def test_a_rule_is_as_severe_as_its_worst_result() -> None:
    only = run([replace(ERROR, level=level, subject=level.value) for level in reversed(Level)])
    (rule,) = only["tool"]["driver"]["rules"]
    assert float(rule["properties"]["security-severity"]) >= 7
    assert rule["defaultConfiguration"] == {"level": "error"}


def test_rules_of_others_are_described_by_them() -> None:
    described = Rule("Looser than before", "The limit was raised.", "Lower it.", 8.1)
    text = render_sarif([Remark("check.looser", Level.ERROR, "x")], about="check", rules={"check.looser": described})
    (rule,) = checked(text)["tool"]["driver"]["rules"]
    assert rule["shortDescription"] == {"text": "Looser than before"}
    assert rule["help"]["text"] == "The limit was raised.\n\nLower it."
    assert rule["properties"]["security-severity"] == "8.1"


def unchecked(remarks: Sequence[Remark]) -> tuple[int, Any]:
    """Size and run; the whole schema takes minutes on files that large."""
    text = render_sarif(remarks, about="m")
    return len(text.encode("utf-8")), json.loads(text)["runs"][0]


def test_too_many_results_are_cut_and_it_is_said() -> None:
    warnings = [Remark("check.x", Level.WARNING, str(number), subject=str(number)) for number in range(30_000)]
    size, only = unchecked([*warnings, ERROR])
    assert size <= MOST_BYTES
    assert len(only["results"]) <= MOST_RESULTS
    assert only["results"][0]["ruleId"] == "scan.fail_on"
    said = only["results"][-1]
    assert (said["ruleId"], said["level"]) == ("quantguard.left-out", "warning")
    assert said["message"]["text"].startswith(f"{30_001 - (len(only['results']) - 1)} more results are left out")
    VALIDATOR.validate({"version": "2.1.0", "runs": [{**only, "results": only["results"][-2:]}]})


def test_too_long_results_are_cut_too_with_their_rules() -> None:
    errors = [Remark(f"rule.{number}" + "🙂" * 200, Level.ERROR, "🙂" * 5000, PLACE) for number in range(1500)]
    size, only = unchecked(errors)
    assert MOST_BYTES * 0.9 < size <= MOST_BYTES
    assert only["results"][-1]["ruleId"] == "quantguard.left-out"
    assert len(only["tool"]["driver"]["rules"]) == len(only["results"])
    assert unquote(only["automationDetails"]["id"]) == "quantguard/m/"
