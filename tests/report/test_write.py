from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quantguard.core.errors import EvidenceError, UsageError
from quantguard.core.verdict import Verdict
from quantguard.report.facts import ReportFacts
from quantguard.report.json_report import render_json
from quantguard.report.markdown import render_markdown
from quantguard.report.write import FORMATS, parse_output, write_reports
from tests.report.made import CLEAN, HELD, MALICIOUS, REPAIRED, hostile


def test_each_output_is_written_in_its_format(tmp_path: Path) -> None:
    outputs = [parse_output(f"json={tmp_path}/a/r.json"), parse_output(f"md={tmp_path}/r=1.md")]
    write_reports(REPAIRED, outputs)
    assert (tmp_path / "a" / "r.json").read_text(encoding="utf-8") == render_json(REPAIRED)
    assert (tmp_path / "r=1.md").read_text(encoding="utf-8") == render_markdown(REPAIRED)
    assert json.loads((tmp_path / "a" / "r.json").read_bytes())["schema"] == "quantguard.report/1"
    assert [path.name for path in tmp_path.rglob("*.partial")] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pdf=x", "'pdf' is no report format"),
        ("report.json", "annotations, html, json, junit, md or sarif"),
        ("json=", "names no file"),
        ("=x", "''"),
    ],
)
def test_an_output_that_cannot_be_is_a_usage_error(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_output(text)
    assert words in str(caught.value)


def test_nothing_is_written_where_one_output_is_wrong(tmp_path: Path) -> None:
    good = tmp_path / "r.json"
    with pytest.raises(UsageError, match="no report format"):
        write_reports(CLEAN, [("json", good), ("pdf", tmp_path / "r.pdf")])
    with pytest.raises(UsageError, match="same file"):
        write_reports(CLEAN, [("json", good), ("md", good)])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_an_evidence_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(EvidenceError):
        write_reports(CLEAN, [("md", tmp_path / "file" / "r.md")])


@pytest.mark.parametrize("facts", [CLEAN, REPAIRED, MALICIOUS, HELD, hostile()])
def test_every_format_is_written_and_all_tell_the_same_verdict(tmp_path: Path, facts: ReportFacts) -> None:
    write_reports(facts, [(name, tmp_path / name) for name in FORMATS])
    told = {name: (tmp_path / name).read_text(encoding="utf-8") for name in FORMATS}
    assert told == {name: render(facts) for name, render in FORMATS.items()}
    assert facts.outcome is not None
    promoted = facts.outcome.verdict is Verdict.PROMOTE
    assert json.loads(told["json"])["verdict"] == facts.outcome.verdict.value
    assert told["md"].startswith(f"# {facts.outcome.verdict.value}: ")
    assert ("::error " in told["annotations"]) is not promoted
    assert ('"level":"error"' in told["sarif"]) is not promoted
    assert promoted or "<failure" in told["junit"] or "<error" in told["junit"]


@pytest.mark.parametrize(
    "module",
    ["quantguard.report.terminal", "quantguard.report.write", "quantguard.policy.load", "quantguard.policy.decide"],
)
def test_reports_and_policies_import_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "heavy = {'torch', 'transformers', 'bitsandbytes', 'mlflow', 'click', 'scipy', 'lm_eval'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
