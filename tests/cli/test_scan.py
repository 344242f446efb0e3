"""What `quantguard scan` tells beside its exit code: a rule, the layers, a page."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.cli.scan import EFFORTS
from quantguard.report.rules import RULES
from quantguard.scan.scan import Effort
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


def test_the_efforts_offered_are_those_of_the_scan() -> None:
    assert sorted(EFFORTS) == sorted(effort.value for effort in Effort)


def test_a_scan_shows_its_findings_its_layers_and_how_to_have_them_explained(run: Run, tmp_path: Path) -> None:
    outputs = [part for name in ("html", "json", "sarif") for part in ("--output", f"{name}={tmp_path / name}")]
    ran = run("scan", canary_directory(CanaryKind.NF4_ATTACKED), "--layers", "3", *outputs)
    assert ran.code == 1
    assert "Layers, worst first" in ran.out
    assert ran.out.count("NF4") >= 3
    assert "█" in ran.out
    assert re.fullmatch(r"what a rule means: quantguard scan --explain scan\.[a-z]+", ran.out.splitlines()[-1])
    facts = json.loads((tmp_path / "json").read_text())["facts"]
    kept = [layer for layer in facts["layers"] if layer["histogram"] is not None]
    assert (tmp_path / "html").read_text().count("</svg>") == len(kept) > 0
    results = json.loads((tmp_path / "sarif").read_text())["runs"][0]["results"]
    assert results[0]["properties"]["histogram"]["observed"] == kept[0]["histogram"]["observed"]
    assert facts["layers"][0]["suspicious"]


def test_no_layers_are_shown_where_none_are_asked_for(run: Run) -> None:
    ran = run("scan", canary_directory(CanaryKind.CLEAN), "--layers", "0", "--effort", "quick")
    assert (ran.code, ran.out) == (0, "0 findings in 21 linear weights of 417792 elements\n")


def test_what_is_sampled_is_drawn_anew_unless_a_seed_is_given(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker who knew which weights are looked at would prepare the others."""
    drawn: list[int] = []

    def randbits(bits: int) -> int:
        drawn.append(bits)
        return 1

    monkeypatch.setattr(secrets, "randbits", randbits)
    command = ("scan", canary_directory(CanaryKind.CLEAN), "--effort", "quick", "--quiet")
    assert run(*command, "--seed", "0").code == 0
    assert drawn == []
    assert run(*command).code == 0
    assert len(drawn) == 1
