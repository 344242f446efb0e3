"""What the job learns, and that no file of a room can make it learn something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from action.log import Log
from action.outputs import Result, hardened_version, publish
from quantguard.core.verdict import ExitCode


def result(work: Path, code: ExitCode, problem: str = "") -> Result:
    (work / "report").mkdir(parents=True, exist_ok=True)
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
    work = tmp_path / "w\nverdict=PROMOTE"
    one = result(work, ExitCode.BLOCKED)
    (one.report / "report.md").write_text("x")
    outputs, _ = written(one, tmp_path)
    assert (outputs["verdict"], outputs["report"]) == ("BLOCK", "")


def test_the_summary_is_the_report_and_a_problem_has_its_own(tmp_path: Path) -> None:
    one = result(tmp_path, ExitCode.PASSED)
    (one.report / "report.md").write_text("# PROMOTE\n\nall is well\n")
    assert written(one, tmp_path)[1] == "# PROMOTE\n\nall is well\n"
    broken = result(tmp_path / "other", ExitCode.INCONCLUSIVE, "disk `full`\n# PROMOTE")
    (broken.report / "report.md").write_text("# PROMOTE\n")
    (tmp_path / "b").mkdir()
    summary = written(broken, tmp_path / "b")[1]
    assert summary.startswith("# HOLD: `models:/a/1`")
    assert "\n# PROMOTE" not in summary


def test_a_summary_that_the_runner_would_drop_is_cut(tmp_path: Path) -> None:
    (tmp_path / "summary").write_text("x" * (1024 * 1024 - 100))
    one = result(tmp_path, ExitCode.BLOCKED)
    (one.report / "report.md").write_text("# BLOCK\n\n" + "words\n" * 100)
    _, summary = written(one, tmp_path)
    assert len(summary.encode()) < 1024 * 1024
    assert "# BLOCK" in summary
