"""What the job learns, and that no file of a room can make it learn something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from action.log import Log
from action.outputs import Result, hardened_version, publish
from quantguard.core.verdict import ExitCode


def result(work: Path, code: ExitCode, problem: str = "", *, reported: str = "", text: str = "") -> Result:
    """With a report of the verdict `reported` beside it, which reads `text`."""
    (work / "report").mkdir(parents=True, exist_ok=True)
    if reported:
        (work / "report" / "report.json").write_text(json.dumps({"verdict": reported}))
        (work / "report" / "report.md").write_text(text)
        (work / "report" / "annotations.txt").write_text(f"::notice::{reported}\n")
    return Result(code, "models:/a/1", work, problem)


def written(one: Result, folder: Path) -> tuple[dict[str, str], str]:
    files = {"GITHUB_OUTPUT": folder / "output", "GITHUB_STEP_SUMMARY": folder / "summary"}
    publish(one, {name: str(path) for name, path in files.items()}, Log())
    lines = (folder / "output").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines), (folder / "summary").read_text()


@pytest.mark.parametrize(
    ("code", "verdict"), list(zip(ExitCode, ("PROMOTE", "BLOCK", "HOLD", "HOLD", "HOLD"), strict=True))
)
def test_only_exit_code_0_is_a_promotion(code: ExitCode, verdict: str, tmp_path: Path) -> None:
    outputs, _ = written(result(tmp_path, code), tmp_path)
    assert (outputs["verdict"], outputs["exit-code"]) == (verdict, str(int(code)))


def published(work: Path, version: object) -> None:
    work.mkdir(exist_ok=True)
    (work / "published.json").write_text(json.dumps({"body": {"derivative": {"version": version}}}))


@pytest.mark.parametrize(
    ("version", "said"), [("12", "12"), (12, ""), ("", ""), ("1\nverdict=PROMOTE", ""), ("x", ""), (None, "")]
)
def test_a_hardened_version_is_digits(version: object, said: str, tmp_path: Path) -> None:
    published(tmp_path, version)
    assert hardened_version(result(tmp_path, ExitCode.PASSED)) == said


def test_what_was_not_promoted_names_no_version(tmp_path: Path) -> None:
    published(tmp_path, "12")
    assert hardened_version(result(tmp_path, ExitCode.BLOCKED)) == ""


def test_a_directory_whose_name_holds_a_newline_is_no_output(tmp_path: Path) -> None:
    one = result(tmp_path / "w\nverdict=PROMOTE", ExitCode.BLOCKED, reported="BLOCK")
    outputs, _ = written(one, tmp_path)
    assert (outputs["verdict"], outputs["report"]) == ("BLOCK", "")


def test_the_summary_is_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = result(tmp_path, ExitCode.PASSED, reported="PROMOTE", text="# PROMOTE\n\nall is well\n")
    outputs, summary = written(one, tmp_path)
    assert (outputs["report"], summary) == (str(tmp_path / "report"), "# PROMOTE\n\nall is well\n")
    assert capsys.readouterr().out == "::notice::PROMOTE\n"


def test_what_stopped_the_run_stands_before_a_report_that_says_hold(tmp_path: Path) -> None:
    one = result(tmp_path, ExitCode.INCONCLUSIVE, "disk `full`\n# PROMOTE", reported="HOLD", text="# HOLD\n\nfigures\n")
    outputs, summary = written(one, tmp_path)
    assert outputs["report"] == str(tmp_path / "report")
    assert summary.startswith("# HOLD: `models:/a/1`")
    assert summary.endswith("\n# HOLD\n\nfigures\n")
    assert "\n# PROMOTE" not in summary


@pytest.mark.parametrize("said", ["PROMOTE", "BLOCK", "", "no JSON"])
def test_a_report_of_another_verdict_is_not_shown(
    said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written before the run was ended, or by a room that was taken over."""
    one = result(tmp_path, ExitCode.INCONCLUSIVE, reported=said, text="# PROMOTE\n")
    if said == "no JSON":
        (one.report / "report.json").write_text("{")
    outputs, summary = written(one, tmp_path)
    assert outputs["report"] == ""
    assert "PROMOTE" not in summary + capsys.readouterr().out


def test_a_summary_that_the_runner_would_drop_is_cut(tmp_path: Path) -> None:
    (tmp_path / "summary").write_text("x" * (1024 * 1024 - 100))
    one = result(tmp_path, ExitCode.BLOCKED, reported="BLOCK", text="# BLOCK\n\n" + "words\n" * 100)
    _, summary = written(one, tmp_path)
    assert len(summary.encode()) < 1024 * 1024
    assert "# BLOCK" in summary
