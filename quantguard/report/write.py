"""Reports to files, in the formats that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from quantguard.core.errors import UsageError
from quantguard.core.model import RegisteredVersion, parse_model_ref
from quantguard.evidence.records import write_atomically
from quantguard.report.annotations import render_annotations
from quantguard.report.facts import ReportFacts
from quantguard.report.html_report import render_html
from quantguard.report.json_report import render_json
from quantguard.report.junit import render_junit
from quantguard.report.layers import measured
from quantguard.report.markdown import render_markdown
from quantguard.report.remarks import is_promotion, remarks, suppressed
from quantguard.report.sarif import render_sarif


class Renderer(Protocol):
    def __call__(self, facts: ReportFacts) -> str:
        """The whole file. Pure: the same facts give the same text."""


def _sarif(facts: ReportFacts) -> str:
    """The remarks as SARIF. That a model was promoted is no alert, so a clean one closes those that it had."""
    alerts = [remark for remark in remarks(facts) if not is_promotion(remark)]
    return render_sarif(alerts, about=_without_version(facts.model), measured=measured(facts), waived=suppressed(facts))


def _annotations(facts: ReportFacts) -> str:
    """The remarks as workflow commands."""
    return render_annotations(remarks(facts))


def _without_version(model: str) -> str:
    """Code scanning is about a model: what one version did wrong is over when the next one passes."""
    try:
        ref = parse_model_ref(model)
    except UsageError:
        return model
    return ref.name if isinstance(ref, RegisteredVersion) else model


FORMATS: Final[Mapping[str, Renderer]] = MappingProxyType(
    {
        "annotations": _annotations,
        "html": render_html,
        "json": render_json,
        "junit": render_junit,
        "md": render_markdown,
        "sarif": _sarif,
    }
)


def parse_output(text: str) -> tuple[str, Path]:
    """`json=report.json` as format and file.

    Raises:
        UsageError: an unknown format, or no file.
    """
    name, _, file = text.partition("=")
    _renderer(name)
    if not file:
        raise UsageError(f"{text!r} names no file", remedy=f"write {name}=FILE")
    return name, Path(file)


def write_reports(facts: ReportFacts, outputs: Sequence[tuple[str, Path]]) -> None:
    """Write `facts` once for each (format, file). Nothing is written where one of the formats is unknown.

    Raises:
        UsageError: an unknown format, or the same file twice.
        EvidenceError: a file cannot be written; it is then as it was before.
    """
    files = [file for _, file in outputs]
    if len(set(files)) != len(files):
        raise UsageError("two outputs name the same file", remedy="give each format a file of its own")
    renderers = [(_renderer(name), file) for name, file in outputs]
    for render, file in renderers:
        write_atomically(file, render(facts).encode("utf-8"))


def _renderer(name: str) -> Renderer:
    if name not in FORMATS:
        raise UsageError(f"{name!r} is no report format", remedy=f"use FORMAT=FILE with {_one_of(sorted(FORMATS))}")
    return FORMATS[name]


def _one_of(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"
