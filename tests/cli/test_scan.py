"""What `quantguard scan` tells beside its exit code: a rule, the layers, a page."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from quantguard.report.rules import RULES
from tests.cli.conftest import Run
from tests.cli.test_help import _MODULES, HEAVY
from tests.command import environment


@pytest.mark.parametrize("rule", [*RULES, "list"])
def test_a_rule_is_explained_without_a_directory(run: Run, rule: str) -> None:
    ran = run("scan", "--explain", rule)
    assert (ran.code, ran.err) == (0, "")
    named = RULES if rule == "list" else (rule,)
    assert [name for name in named if name not in ran.out] == []


def test_an_unknown_rule_is_a_usage_error_with_the_right_word(run: Run) -> None:
    ran = run("scan", "--explain", "scan.boundry")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err == (
        "quantguard: no rule 'scan.boundry' (did you mean scan.boundary? `--explain list` tells what each is about)\n"
    )


def test_an_explanation_comes_before_everything_else(run: Run) -> None:
    ran = run("scan", "absent", "--output", "json=x", "--explain", "scan.atoms", "--fail-on", "low")
    assert ran.code == 0
    assert ran.out.startswith("scan.atoms\n")


@pytest.mark.parametrize("rule", ["scan.boundary", "nonsense"])
def test_an_explanation_imports_nothing_heavy(rule: str) -> None:
    command = [sys.executable, "-c", _MODULES, "scan", "--explain", rule]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    modules = json.loads(ran.stderr[ran.stderr.index("[") :])
    assert HEAVY & set(modules) == set()
