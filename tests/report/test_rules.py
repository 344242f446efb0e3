"""Every rule that the product can report has an entry of its own, and the terminal tells it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantguard.core.errors import UsageError
from quantguard.core.measurement import Scenario
from quantguard.report import remarks, sarif
from quantguard.report.explain import ALL, explanation
from quantguard.report.rules import RULES, described, known_as, nearest, paragraphs

PACKAGE = Path(__file__).parents[2] / "quantguard"
ROOMS = ("scan", "checkpoint")  # whose findings these are; gate, policy and report name theirs in constants
ID = re.compile(r"(scan|checkpoint)\.[a-z_]+")
FILES = {"scan.json", "scan.py"}


def constants(tree: ast.AST) -> Iterator[str]:
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def named(call: ast.Call) -> Iterator[str]:
    """Rules that a call of `_finding` or `Order` names without their room."""
    function = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    first = call.args[0] if call.args else None
    if function in {"_finding", "Order"} and isinstance(first, ast.Constant) and isinstance(first.value, str):
        yield first.value if "." in first.value else f"checkpoint.{first.value}"


def emitted() -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for room in ROOMS for path in (PACKAGE / room).rglob("*.py")]
    whole = {text for tree in trees for text in constants(tree) if ID.fullmatch(text)} - FILES
    calls = {rule for tree in trees for call in ast.walk(tree) if isinstance(call, ast.Call) for rule in named(call)}
    # The docstring of unsafe.py lists what it finds, one rule a line.
    listed = set(
        re.findall(r"^    (checkpoint\.[a-z_]+) ", (PACKAGE / "checkpoint/unsafe.py").read_text(), re.MULTILINE)
    )
    return whole | calls | listed


def test_every_rule_that_can_be_reported_has_an_entry_of_its_own() -> None:
    found = emitted()
    assert {"scan.boundary", "scan.on_grid", "checkpoint.pickle", "checkpoint.remote_code"} <= found
    assert found - set(RULES) == set()


@pytest.mark.parametrize(
    "rule",
    [
        *(f"attack_success.{scenario.value}.max_upper_bound" for scenario in Scenario),
        "attack_success.vulnerable_code.max_unparsable",
        "benchmarks.some task.max_drop",
        "scan.fail_on",
        "harden.mode",
        "requires.gpu",
        remarks.VERDICT,
        sarif._LEFT_OUT,
    ],
)
def test_the_rules_of_a_policy_are_known(rule: str) -> None:
    assert known_as(rule) in RULES


@pytest.mark.parametrize("rule", RULES)
def test_an_entry_is_complete_and_short_enough_for_code_scanning(rule: str) -> None:
    entry = RULES[rule]
    assert all((entry.short, entry.full, entry.remedy, entry.source, entry.false_positives))
    assert len(entry.full) < 1024
    assert not entry.short.endswith(".")
    assert 7 <= entry.severity <= 10
    assert all(text.rstrip().endswith((".", "?")) for _, text in paragraphs(entry))


@pytest.mark.parametrize("rule", ["scan.boundary", "benchmarks.piqa.max_drop"])
def test_an_explanation_has_all_parts_and_fits_a_terminal(rule: str) -> None:
    text = explanation(rule)
    parts = ["What it means", "Source", "False positives", "What to do"]
    places = [text.index(f"\n{part}\n") for part in parts]
    assert places == sorted(places)
    assert max(map(len, text.splitlines())) <= 88
    flat = " ".join(text.split())
    assert all(" ".join(part.split()) in flat for _, part in paragraphs(described(rule)))


def test_the_list_has_a_line_for_each_rule() -> None:
    assert [line.split()[0] for line in explanation(ALL).splitlines()] == list(RULES)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("boundary", "scan.boundary"),
        ("scan.boundry", "scan.boundary"),
        ("Checkpoint.Pickle", "checkpoint.pickle"),
        ("pickles", "checkpoint.pickle"),
        ("template", "checkpoint.chat_template"),
        ("max_drop", "benchmarks.*.max_drop"),
    ],
)
def test_a_rule_that_is_misspelt_is_answered_with_the_one_that_is_meant(asked: str, meant: str) -> None:
    assert nearest(asked)[0] == meant
    with pytest.raises(UsageError, match=re.escape(f"did you mean {meant}")):
        explanation(asked)


@pytest.mark.parametrize("asked", ["", "zzz", "\x1b[2J", "*", "scan.*", "a" * 1_000_000])
def test_what_resembles_no_rule_is_answered_with_all_of_them(asked: str) -> None:
    with pytest.raises(UsageError) as caught:
        explanation(asked)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert "scan.boundary" in str(caught.value)


def test_every_paper_is_named_by_its_number() -> None:
    cited = {
        number
        for rule in RULES.values()
        for number in re.findall(r"arXiv (\d{4}\.\d{5})", " ".join((rule.source, rule.false_positives)))
    }
    assert {"2405.18137", "2505.23786", "2605.15152", "2203.11086"} <= cited
