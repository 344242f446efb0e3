"""What the job learns: outputs, summary, annotations. Read from files that the rooms wrote; never executed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from action.log import Log
from quantguard.core.verdict import ExitCode, Verdict
from quantguard.report.text import code_span

_SUMMARY_LIMIT: Final = 1024 * 1024  # bytes; the runner drops a larger one whole
_VERDICT: Final = {ExitCode.PASSED: Verdict.PROMOTE, ExitCode.BLOCKED: Verdict.BLOCK}


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    code: ExitCode
    model: str
    work: Path
    problem: str = ""  # why there is no report: what stopped the run, in one line

    @property
    def verdict(self) -> Verdict:
        """HOLD for whatever did not end in a decision: nothing downstream may take it for a pass."""
        return _VERDICT.get(self.code, Verdict.HOLD)

    @property
    def report(self) -> Path:
        return self.work / "report"


def publish(result: Result, environment: Mapping[str, str], log: Log) -> None:
    """Write the step's outputs and summary, and print the annotations."""
    outputs = {
        "verdict": result.verdict.value,
        "exit-code": str(int(result.code)),
        "evidence": _where(result.work / "evidence"),
        "bundle": _where(result.work / "signed"),
        "report": _where(result.report) if is_reported(result) else "",
        "hardened-version": hardened_version(result),
    }
    if file := environment.get("GITHUB_OUTPUT"):
        _append(Path(file), "".join(f"{name}={value}\n" for name, value in outputs.items()))
    if file := environment.get("GITHUB_STEP_SUMMARY"):
        _append_summary(Path(file), log.redacted(summary(result)))
    if is_reported(result):
        sys.stdout.write(log.redacted(_read(result.report / "annotations.txt")))
        sys.stdout.flush()


def is_reported(result: Result) -> bool:
    """Whether the rooms left a report of this very verdict. Another one is not shown: it may say more than is so."""
    try:
        return bool(json.loads(_read(result.report / "report.json"))["verdict"] == result.verdict.value)
    except (ValueError, KeyError, TypeError):
        return False


def _where(directory: Path) -> str:
    """The directory, or nothing where nothing is in it. A newline would start another output."""
    there = directory.is_dir() and any(directory.iterdir())
    return str(directory) if there and str(directory).isprintable() else ""


def hardened_version(result: Result) -> str:
    """The version number of the hardened derivative that was promoted; empty where there is none."""
    if result.code is not ExitCode.PASSED:
        return ""
    try:
        published = json.loads(_read(result.work / "published.json"))
        version = published["body"]["derivative"]["version"]
    except (ValueError, KeyError, TypeError):
        return ""
    return version if isinstance(version, str) and re.fullmatch(r"[0-9]{1,18}", version) else ""


def summary(result: Result) -> str:
    """What stopped the run, if anything did, and then the report, if there is one of this verdict."""
    report = _read(result.report / "report.md") if is_reported(result) else ""
    if report and not result.problem:
        return report
    meaning = "blocked" if result.verdict is Verdict.BLOCK else "it could not be finished, and does not pass"
    head = f"# {result.verdict.value}: {code_span(result.model)}\n\n{meaning} (exit code {int(result.code)})\n"
    problem = f"\n{code_span(result.problem, 2000)}\n" if result.problem else ""
    return head + problem + (f"\n{report}" if report else "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _append_summary(path: Path, text: str) -> None:
    """Add `text` to the step's summary, or its first lines where the runner would otherwise drop all of it."""
    held = path.stat().st_size if path.exists() else 0
    if held + len(text.encode()) >= _SUMMARY_LIMIT:
        text = "\n".join(text.splitlines()[:3]) + "\n\nThe summary of this step is full: see the report.\n"
    _append(path, text)
