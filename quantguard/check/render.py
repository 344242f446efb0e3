"""What a check found, for terminals, pull requests and programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Protocol

from quantguard.check.facts import Answer, CheckResult
from quantguard.check.remarks import LOOSER, PIN_UNKNOWN
from quantguard.check.rules import RULES
from quantguard.core.remark import Level, Remark
from quantguard.core.verdict import ExitCode
from quantguard.evidence.records import to_plain, write_atomically
from quantguard.report.annotations import render_annotations
from quantguard.report.sarif import render_sarif
from quantguard.report.text import code_span, visible

SCHEMA: Final = "quantguard.check/1"
_MESSAGE: Final = 1000  # characters
_MOST_ROWS: Final = 500  # of a Markdown report: a step summary above 1 MiB is dropped whole


class Renderer(Protocol):
    def __call__(self, result: CheckResult) -> str:
        """The whole file."""


@dataclass(frozen=True, slots=True)
class _Document:
    """What the JSON file holds; `answer` and `exit_code` follow from the result and stand first for shell scripts."""

    schema: Literal["quantguard.check/1"]
    answer: Answer
    exit_code: ExitCode
    result: CheckResult


def render_text(result: CheckResult) -> str:
    """The answer, one line a remark, and what to do next."""
    lines = [headline(result), *map(_line, result.remarks), *next_steps(result)]
    return "".join(line + "\n" for line in lines)


def headline(result: CheckResult) -> str:
    """One line: the answer and what it is about."""
    if result.answer is Answer.NOTHING:
        return f"nothing to check: no policy and no manifest, here or in {visible(result.base)}"
    counts = [f"{n} {level.value}{'s' if n > 1 else ''}" for level in Level if (n := result.count(level))]
    found = ", ".join(counts) if counts else "nothing to remark"
    about = f"{_counted(result.policies, 'policy', 'policies')} ({result.changed} changed)"
    about += f", {_counted(result.pins, 'pin', 'pins')}" if result.manifest else ""
    return f"{result.answer.value}: {found}; {about}; compared with {visible(result.base)} {result.began_at[:12]}"


def next_steps(result: CheckResult) -> tuple[str, ...]:
    """What to do, one sentence each."""
    if result.answer is Answer.NOTHING:
        return ("next: add a policy (schema: quantguard.policy/1), or leave this check out",)
    rules = [remark.rule for remark in result.remarks if remark.level is Level.ERROR]
    steps = []
    if any(rule not in (LOOSER, PIN_UNKNOWN) for rule in rules):
        steps.append("next: change what is marked as an error")
    if LOOSER in rules:
        steps.append(
            "next: take the looser limits back, or have them allowed by whoever may: --allow-looser, "
            "which a workflow gives for a label that only maintainers set"
        )
    if PIN_UNKNOWN in rules:
        steps.append("next: make the registry reachable from here and run again; until then this does not pass")
    return (
        tuple(steps)
        or ("next: nothing; what is marked as a warning is for the reviewer",) * bool(result.count(Level.WARNING))
        or ("next: nothing",)
    )


def render_markdown(result: CheckResult) -> str:
    """For a step summary or a comment."""
    lines = [f"## QuantGuard check: {result.answer.value}", "", _escaped(headline(result)), ""]
    lines += [_bullet(remark) for remark in result.remarks[:_MOST_ROWS]]
    if more := len(result.remarks) - _MOST_ROWS:
        lines += [f"- and {more} more, all in the JSON report"] if more > 0 else []
    return "\n".join([*lines, "", *map(_escaped, next_steps(result))]) + "\n"


def render_json(result: CheckResult) -> str:
    """Everything, as indented ASCII JSON with sorted keys."""
    document = _Document(SCHEMA, result.answer, result.answer.exit_code, result)
    return json.dumps(to_plain(_Document, document), indent=2, sort_keys=True, ensure_ascii=True) + "\n"


def _annotations(result: CheckResult) -> str:
    return render_annotations(result.remarks)


def _sarif(result: CheckResult) -> str:
    """A notice is no alert."""
    alerts = [remark for remark in result.remarks if remark.level is not Level.NOTICE]
    return render_sarif(alerts, about="check", rules=RULES)


FORMATS: Final[Mapping[str, Renderer]] = MappingProxyType(
    {"annotations": _annotations, "json": render_json, "md": render_markdown, "sarif": _sarif}
)


def write_outputs(result: CheckResult, outputs: Sequence[tuple[str, Path]]) -> None:
    """Raises:
    EvidenceError: a file cannot be written; it is then as it was before.
    """
    for name, file in outputs:
        write_atomically(file, FORMATS[name](result).encode("utf-8"))


def _line(remark: Remark) -> str:
    where = f"{visible(remark.place.file)}:{remark.place.line}: " if remark.place is not None else ""
    return f"{where}{remark.level.value}: {visible(remark.message, _MESSAGE)}"


def _bullet(remark: Remark) -> str:
    where = code_span(f"{remark.place.file}:{remark.place.line}") + " " if remark.place is not None else ""
    return f"- **{remark.level.value}** {where}{code_span(remark.message, _MESSAGE)}"


def _escaped(text: str) -> str:
    return code_span(text, _MESSAGE)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
