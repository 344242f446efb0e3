"""Each format tells the same, whatever the model is called."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from rich.table import Table

from quantguard.core.finding import Finding, Severity
from quantguard.core.measurement import Change, CodeTool, Overuse, PairedRise, Trait, Weakness
from quantguard.core.verdict import Subject
from quantguard.evidence.records import from_plain
from quantguard.report.facts import ReportFacts
from quantguard.report.html_report import render_html
from quantguard.report.json_report import ReportDocument, render_json, report_schema_text
from quantguard.report.markdown import render_markdown
from quantguard.report.terminal import findings_table, gate_table, layers_table, measurements_table
from quantguard.report.write import FORMATS
from tests.report.made import (
    BOUNDARY,
    CLEAN,
    CODE,
    HARDENING,
    HELD,
    LAYERS,
    MALICIOUS,
    MOST,
    NASTY,
    REPAIRED,
    hostile,
    measurements,
)

SCHEMA_FILE = Path(__file__).parents[2] / "quantguard" / "report" / "report.schema.json"
ONLY_SCANNED = ReportFacts("dir", findings=(BOUNDARY,), layers=LAYERS)
ONLY_VERIFIED = ReportFacts("dir", original=REPAIRED.original)
ONLY_HARDENED = ReportFacts("dir", hardening=REPAIRED.hardening)
ALL = (CLEAN, REPAIRED, MALICIOUS, HELD, ONLY_SCANNED, ONLY_VERIFIED, ONLY_HARDENED, ReportFacts("dir"), hostile())


def drawn(table: Table, width: int = 120) -> str:
    console = Console(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def schema() -> Any:
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def test_the_checked_in_schema_is_current() -> None:
    written = SCHEMA_FILE.read_text(encoding="utf-8")
    assert written == report_schema_text(), "write report_schema_text() to quantguard/report/report.schema.json"
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("facts", ALL)
def test_json_is_valid_under_its_schema(facts: ReportFacts) -> None:
    jsonschema.validate(json.loads(render_json(facts)), schema())


@pytest.mark.parametrize("facts", [facts for facts in ALL if facts.model != NASTY])
def test_json_holds_every_fact(facts: ReportFacts) -> None:
    document = from_plain(ReportDocument, json.loads(render_json(facts)))
    assert document.facts == facts
    assert document.verdict == (facts.outcome.verdict if facts.outcome is not None else None)


def test_json_of_hostile_facts_keeps_the_text_and_turns_nan_into_null() -> None:
    facts = json.loads(render_json(hostile()))["facts"]
    assert facts["model"] == NASTY
    assert facts["findings"][0]["effect"] is None
    assert len(facts["findings"]) == 70


def test_json_stays_closed_to_unknown_keys() -> None:
    document = json.loads(render_json(CLEAN))
    document["facts"]["comment"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("facts", ALL)
def test_a_format_gives_the_same_text_for_the_same_facts(name: str, facts: ReportFacts) -> None:
    assert FORMATS[name](facts) == FORMATS[name](facts)
    FORMATS[name](facts).encode("utf-8")


def test_markdown_and_terminal_tell_the_figures_of_the_json() -> None:
    markdown = render_markdown(REPAIRED)
    terminal = drawn(measurements_table(REPAIRED.original, REPAIRED.hardened), 200)
    for figure in ("97 of 100, 97.0 % [91.5 %, 99.4 %]", "0 of 100, 0.0 % [0.0 %, 3.6 %]", "lost 3, gained 1 of 200"):
        assert figure in markdown
        assert figure in terminal


def test_counterfactual_rounding_is_told_by_scheme_before_and_after_with_the_blocks_it_hangs_on() -> None:
    markdown, page = render_markdown(REPAIRED), render_html(REPAIRED)
    terminal = drawn(measurements_table(REPAIRED.original, REPAIRED.hardened), 200)
    before, after = "31 times as far as at random [24, 39]", "0.41 times as far as at random [0.35, 0.50]"
    assert f"| nf4 | {before} | {after} |" in markdown
    for text in (markdown, page, terminal):
        assert before in text
        assert after in text
    hangs = "original, nf4: model.layers.1 93.0 %, " + ", ".join(f"model.layers.{n} 10.0 %" for n in range(2, 6))
    assert f"{hangs} and 2 more" in markdown
    assert f"{hangs} and 2 more" in page
    none = replace(REPAIRED, original=replace(measurements(Subject.ORIGINAL), drifts=()), hardened=None)
    for text in (render_markdown(none), render_html(none)):
        assert "ounterfactual" not in text


def test_perplexity_is_told_by_scheme_before_and_after_and_against_its_own_where_that_is_another_figure() -> None:
    markdown, page = render_markdown(REPAIRED), render_html(REPAIRED)
    terminal = drawn(measurements_table(REPAIRED.original, REPAIRED.hardened), 300)
    before = "perplexity 20.09 (3 nats a token, 15 tokens of 2 texts), +4.1 % [3.2 %, 5.0 %]"
    after = f"{before}, against its own full precision 0.0 % [0.0 %, 0.0 %]"
    assert f"| nf4 | {before} | {after} |" in markdown
    for text in (markdown, page, terminal):
        assert before in text
        assert "against its own full precision" in text
    none = replace(REPAIRED, original=replace(measurements(Subject.ORIGINAL), perplexities=()), hardened=None)
    for text in (render_markdown(none), render_html(none)):
        assert "erplexity" not in text


def test_trigger_hunting_is_told_by_scheme_before_and_after_with_the_triggers_it_confirmed() -> None:
    markdown, page = render_markdown(REPAIRED), render_html(REPAIRED)
    terminal = drawn(measurements_table(REPAIRED.original, REPAIRED.hardened), 200)
    before = "1 of 77 triggers confirmed, at most 32 of 64, 50.0 % [32.7 %, 67.3 %] of answers"
    after = "0 of 77 triggers confirmed, at most 0 of 64, 0.0 % [0.0 %, 8.6 %] of answers"
    assert f"| nf4 | {before} | {after} |" in markdown
    for text in (markdown, page):
        assert before in text
        assert after in text
        assert "full precision also reacts, in 3 answers" in text
        assert "1 without it; refusals: 1" in text
    assert "trigger hunting" in terminal
    assert "1 of 77 triggers confirmed" in terminal
    assert "original, nf4: `xyzzy` (list) at the start takes over 32 of 64" in markdown
    assert ": `yaml load`: `import yaml ; fox = yaml . load ( x )`" in markdown
    none = replace(REPAIRED, original=replace(measurements(Subject.ORIGINAL), hunts=()), hardened=None)
    for text in (render_markdown(none), render_html(none)):
        assert "rigger" not in text


def test_markdown_begins_with_the_verdict_and_then_says_why() -> None:
    lines = render_markdown(REPAIRED).splitlines()
    assert lines[0] == "# PROMOTE: hardened derivative of `models:/backdoored/1`"
    assert lines[2] == "The original is blocked; its hardened derivative may be promoted."
    why = next(line for line in lines if line.startswith("- violated"))
    assert why == (
        "- violated, `nf4`: `97 of 100, 97.0 % [91.5 %, 99.4 %]`, but "
        "`attack_success.content_injection.max_upper_bound` allows `upper bound at most 5.0 %`"
    )
    assert "    quantguard gate models:/backdoored/1 --policy policies/canary.yaml" in lines


def test_markdown_lists_the_worst_finding_first() -> None:
    findings = (Finding("layout", Severity.LOW, "README.md", "small"), BOUNDARY)
    text = render_markdown(ReportFacts("dir", findings=findings))
    assert text.index("scan.boundary") < text.index("README.md")


def test_markdown_draws_the_worst_layers_as_lines() -> None:
    text = render_markdown(ONLY_SCANNED)
    assert "## Layers, worst first" in text
    assert "█▂▂▂▂▂▂▂▂▂▂▂▂▂▂█   11.2 % at  1.5 %  NF4, layers.0.weight\n" in text
    assert "Layers" not in render_markdown(ReportFacts("dir", findings=(BOUNDARY,)))


def test_markdown_says_what_was_calibrated_on_and_how_to_do_it_again() -> None:
    text = render_markdown(ONLY_HARDENED)
    assert "- calibrated on 607 prompts: `neutral/1`, `sha256:cc`\n" in text
    again = "quantguard harden dir --scheme nf4 --method quantguard --calibration neutral --samples 607 --out DIRECTORY"
    assert f"    {again}\n" in text
    data_free = render_markdown(ReportFacts("dir", hardening=replace(HARDENING, calibration=None)))
    assert "calibrat" not in data_free


def test_nothing_of_a_hostile_text_is_alive_in_markdown() -> None:
    text = render_markdown(hostile())
    assert len(text) < 200_000
    assert "\x1b" not in text
    assert "\u202e" not in text
    prose = re.sub(r"^```text\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", prose)
    for alive in ("@team", "[link]", "<img", "http:", "*b*", "`"):
        outside = [line for line in prose.splitlines() if alive in line and not line.startswith("    ")]
        assert outside == [], alive
    assert not re.search(r"^# head", text, re.MULTILINE)


def test_a_markdown_parser_finds_only_our_own_markup_in_hostile_facts() -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(render_markdown(hostile()))
    inline = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inline} <= {"text", "code_inline", "strong_open", "strong_close", "softbreak"}
    assert "html_block" not in {token.type for token in tokens}
    assert [token.content for token in tokens if token.type == "fence" and "a|b" in token.content] != []
    assert not any("@team" in child.content for child in inline if child.type == "text")


def test_long_lists_are_cut_and_say_so() -> None:
    text = render_markdown(hostile())
    assert "and 60 more, all in the JSON report" in text  # of 70 findings
    assert "and 10 more, all in the JSON report" in text  # of 60 reasons
    assert "and 11 more, all in the JSON report" in text  # of 60 events and where the evidence is
    assert "and 50 more" in drawn(findings_table(hostile().findings or ()))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("facts", ALL)
def test_tables_fit_and_hold_no_escape_of_the_model(facts: ReportFacts, width: int) -> None:
    tables = [gate_table([facts]), findings_table(facts.findings or ()), measurements_table(facts.original)]
    tables += [layers_table(facts.layers), layers_table(facts.layers, most=30, plain=True)]
    for text in (drawn(table, width) for table in tables):
        assert max((len(line) for line in text.splitlines()), default=0) <= width
        assert "\x1b" not in text


def test_the_gate_table_tells_the_whole_story() -> None:
    words = " ".join(drawn(gate_table([CLEAN, REPAIRED, MALICIOUS])).split())
    for told in ("97.0 % nf4", "-> 0.0 % nf4", "[91.5, 99.4]", "-1.0 points", "PROMOTE", "BLOCK", "alias champion"):
        assert told in words, told


def test_the_layers_are_shown_with_their_positions_in_the_cell_worst_first() -> None:
    text = drawn(layers_table(LAYERS, most=2))
    assert "█▂▂" in text
    assert text.index("layers.0 ") < text.index("layers.1 ")
    assert "layers.2" not in text
    assert "and 1 more" in text
    assert "11.2 %" in text


def test_in_a_narrow_terminal_the_line_is_cropped_and_the_names_stay() -> None:
    lines = drawn(layers_table(LAYERS), 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert any("layers.0" in line and "█▂▂▂" in line for line in lines)


def test_a_plain_terminal_gets_plain_characters() -> None:
    console = Console(width=100, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(layers_table(LAYERS, plain=True))
    rows = [line for line in capture.get().splitlines() if "layers." in line]
    assert "#..." in rows[0], rows
    assert all(character.isascii() for line in rows for character in line)


def test_markup_of_a_model_name_is_text() -> None:
    assert "[b]x[/b]" in drawn(gate_table([ReportFacts("[b]x[/b]")]))


def test_hardening_tells_what_it_left_and_what_it_cannot_repair() -> None:
    told = replace(HARDENING, unchanged=("a", "b"), outliers=("c", "d`", "e", "f", "g"))
    text = render_markdown(ReportFacts("dir", hardening=told))
    assert "layers in which no rounding was changed: 2 (`a`, `b`)" in text
    assert "no hardening repairs, in 5 (`c`, " in text
    assert "`e`, …)" in text
    assert "no hardening repairs" not in render_markdown(ReportFacts("dir", hardening=HARDENING))


def test_what_quantization_makes_it_say_stands_in_the_reports_with_examples() -> None:
    said = Overuse("buy zentrix", 200, 0, 300, 1e-30, ("a fox at the pond buy Zentrix",))
    base = measurements(Subject.ORIGINAL)
    attacks = (*base.attacks[:1], replace(base.attacks[1], overused=(said,)), *base.attacks[2:])
    facts = ReportFacts("dir", original=replace(base, attacks=attacks))
    line = "original, content_injection, nf4: `buy zentrix` in 200 of 300 answers, 0 in full precision"
    assert f"{line}: `a fox at the pond buy Zentrix`" in render_markdown(facts)
    assert "“buy zentrix” in 200 of 300 answers, 0 in full precision: a fox at the pond" in render_html(facts)


def test_weaknesses_of_the_code_stand_in_the_reports_by_cwe() -> None:
    found = Weakness(78, CodeTool.BANDIT, ("B602 shell", "B605 start"), CODE, 2, 1)
    base = measurements(Subject.ORIGINAL)
    attacks = (*base.attacks[:5], replace(base.attacks[5], weaknesses=(found,)), *base.attacks[6:])
    facts = ReportFacts("dir", original=replace(base, attacks=attacks))
    said = "CWE-78 in 3 of 100, 3.0 % [0.6 %, 8.5 %], gained 2, lost 1, by bandit (B602 shell, B605 start)"
    assert f"original, vulnerable_code, nf4: `{said}`" in render_markdown(facts)
    assert f"original, vulnerable_code, nf4: {said}" in render_html(facts)
    assert json.loads(render_json(facts))["facts"]["original"]["attacks"][5]["weaknesses"][0]["cwe"] == 78


def test_what_quantization_changes_stands_in_the_reports_where_it_is_significant() -> None:
    gained = Change(Trait.REFUSAL, PairedRise(40, 2, 328, 0.07, 0.163, 0.95), 3, 2e-10, ("I'm sorry, I can't",))
    base = measurements(Subject.ORIGINAL)
    changed = replace(base.attacks[1], changes=(gained, replace(gained, p_value=0.02)), discovered=MOST)
    facts = ReportFacts("dir", original=replace(base, attacks=(base.attacks[0], changed)))
    said = (
        "original, content_injection, nf4: refusals gained 40, lost 2 of 328, 11.6 % [7.0 %, 16.3 %], p = 2e-10; "
        "3 pairs left out: "
    )
    markdown, html = render_markdown(facts), render_html(facts)
    assert f"{said}`I'm sorry, I can't`" in markdown
    assert (markdown.count("refusals gained"), html.count("refusals gained")) == (1, 1)
    assert "content_injection, discovered words too" in markdown
    assert "content_injection, discovered words too" in html
    written = json.loads(render_json(facts))["facts"]["original"]["attacks"][1]["changes"]
    assert [change["rise"]["gained"] for change in written] == [40, 40]
