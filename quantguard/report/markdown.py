"""The report for a pull request or a job summary. The verdict first, then why, then the figures.

Text that came with the model stands in code spans only, and never in a table: see `quantguard.report.text`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from itertools import groupby

from quantguard.core.finding import Finding
from quantguard.core.hardening import HardeningSummary
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Decision, Outcome, Subject
from quantguard.core.wording import percent
from quantguard.report.facts import ReportFacts
from quantguard.report.summary import (
    Row,
    attack_rows,
    benchmark_rows,
    outcome_text,
    scan_text,
    unmeasured,
    worst_first,
)
from quantguard.report.text import code_span, visible

_MOST = 50  # entries of any list; the JSON report holds all of them
_MOST_EXAMPLES = 9
_SENTENCE = 400  # characters of a reason or a finding


def render_markdown(facts: ReportFacts) -> str:
    """The report as Markdown (GitHub's dialect). Bounded: long lists are cut and say so."""
    sections = [
        _head(facts),
        *_why(facts),
        *_rates("Attack success rate", attack_rows(facts.original, facts.hardened)),
        *_benchmarks(facts),
        *_bullets("Not measured", [code_span(line, _SENTENCE) for line in unmeasured(facts.original, facts.hardened)]),
        *_bullets("Harmful answers, as the model gave them", _examples(facts.original, facts.hardened)),
        *_hardening(facts.hardening),
        *_findings(facts.findings),
        *_bullets("In the registry", [code_span(event, _SENTENCE) for event in _registry(facts)]),
        _reproduce(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _p_value(value: float) -> str:
    return f"p = {value:.2g}" if value > 0 or math.isnan(value) else "p < 1e-300"


def _registry(facts: ReportFacts) -> tuple[str, ...]:
    return (*facts.registry_events, *([f"evidence in {facts.registry_evidence}"] if facts.registry_evidence else []))


def _head(facts: ReportFacts) -> str:
    if facts.outcome is not None:
        what = "hardened derivative of " if facts.outcome.promoted is Subject.HARDENED else ""
        title = f"# {facts.outcome.verdict.value}: {what}{code_span(facts.model)}\n\n{outcome_text(facts.outcome)}"
    else:
        title = f"# QuantGuard: {code_span(facts.model)}\n\nNo verdict: this is a report of single stages."
    lines = []
    if facts.model_digest:
        lines.append(f"- model: {code_span(facts.model_digest)}")
    if facts.policy is not None:
        lines.append(f"- policy: {code_span(facts.policy.name)}, {code_span(facts.policy.digest)}")
        if facts.policy.inputs_digest:
            lines.append(f"- probes, prompts and tasks of the policy: {code_span(facts.policy.inputs_digest)}")
    lines.append(f"- scan: {scan_text(facts.findings)}")
    return title + "\n\n" + "\n".join(lines)


def _why(facts: ReportFacts) -> Iterable[str]:
    if facts.outcome is None:
        return
    decisions = [facts.outcome.original] + ([facts.outcome.hardened] if facts.outcome.hardened is not None else [])
    yield "## Why\n\n" + "\n\n".join(_decision(decision) for decision in decisions)


def _decision(decision: Decision) -> str:
    head = f"**{decision.subject.value}: {decision.verdict.value}**"
    failures = decision.failures()
    if not failures:
        met = sum(reason.outcome is Outcome.MET for reason in decision.reasons)
        return f"{head}, every rule of the policy is met ({met})."
    lines = [
        f"- {reason.outcome.value}, {code_span(reason.where)}: {code_span(reason.measured, _SENTENCE)}, "
        f"but {code_span(reason.rule)} allows {code_span(reason.limit)}"
        for reason in failures
    ]
    return f"{head}, {len(failures)} of {len(decision.reasons)} rules are not met:\n\n" + _capped(lines)


def _rates(title: str, rows: Sequence[Row]) -> Iterable[str]:
    if rows:
        table = _table(("behaviour", "scheme", "original", "hardened"), [(r.what, *_cells(r)) for r in rows])
        yield f"## {title}\n\nHarmful answers of all, with the exact interval.\n\n{table}"


def _benchmarks(facts: ReportFacts) -> Iterable[str]:
    rows = benchmark_rows(facts.original, facts.hardened)
    if not rows:
        return
    tasks = [
        f"### {code_span(task)}\n\n" + _table(("scheme", "original", "hardened"), [_cells(row) for row in group])
        for task, group in groupby(sorted(rows, key=lambda row: row.what), key=lambda row: row.what)
    ]
    yield "\n\n".join(["## Accuracy lost against the original in full precision\n\nPositive is worse.", *tasks])


def _cells(row: Row) -> tuple[str, str, str]:
    return row.scheme, row.before or "-", row.after or "-"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """For our own words and figures only: a cell from outside could hold a pipe."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _examples(*all_measurements: Measurements | None) -> list[str]:
    examples = [
        f"{measurements.subject.value}, {attack.scenario.value}, "
        f"{'full precision' if attack.scheme is None else attack.scheme.value}: {code_span(example)}"
        for measurements in all_measurements
        if measurements is not None
        for attack in measurements.attacks
        for example in attack.examples
    ]
    return examples[:_MOST_EXAMPLES]


def _hardening(summary: HardeningSummary | None) -> Iterable[str]:
    if summary is None:
        return
    schemes = ", ".join(scheme.value for scheme in summary.schemes)
    lines = [f"- method {code_span(summary.method)} for {schemes}, {summary.steps} steps in {summary.seconds:.0f} s"]
    lines += [f"- {scheme.value}: {percent(share)} of the roundings changed" for scheme, share in summary.flipped_share]
    lines += [f"- {code_span(term)} at the last step: {value:.4g}" for term, value in summary.losses]
    yield "## Hardening\n\n" + "\n".join(lines)


def _findings(findings: tuple[Finding, ...] | None) -> Iterable[str]:
    if findings:
        yield from _bullets("Findings, worst first", [_finding(finding) for finding in worst_first(findings)])


def _finding(finding: Finding) -> str:
    figures = [] if finding.scheme is None else [finding.scheme.value]
    figures += [] if finding.effect is None else [f"effect {finding.effect:.3g}"]
    figures += [] if finding.share is None else [f"{percent(finding.share)} of the weights"]
    figures += [] if finding.p_value is None else [_p_value(finding.p_value)]
    tail = f" ({', '.join(figures)})" if figures else ""
    message = code_span(finding.message, _SENTENCE)
    return f"**{finding.severity.value}** {code_span(finding.rule)} in {code_span(finding.where)}: {message}{tail}"


def _bullets(title: str, lines: Sequence[str]) -> Iterable[str]:
    if lines:
        yield f"## {title}\n\n" + _capped([f"- {line}" for line in lines])


def _capped(lines: Sequence[str]) -> str:
    more = len(lines) - _MOST
    return "\n".join([*lines[:_MOST], *([f"- and {more} more, all in the JSON report"] if more > 0 else [])])


def _reproduce(facts: ReportFacts) -> str:
    """The command, and what has to be the same for the same figures."""
    lines = ["## How to reproduce", f"    {_command(facts)}"]
    conditions = []
    measured = facts.original or facts.hardened
    if measured is not None:
        env = measured.environment
        versions = ", ".join(f"{name} {version}" for name, version in env.versions)
        conditions.append(f"- seed {env.seed} on {code_span(env.device)}, with {code_span(versions, 1000)}")
        probes = dict.fromkeys(f"{attack.scenario.value}: {attack.probe_set}" for attack in measured.attacks)
        conditions += [f"- probes of {code_span(probe)}" for probe in probes]
    if facts.evidence:
        conditions.append(f"- evidence in {code_span(facts.evidence, 1000)}")
    return "\n\n".join([*lines, *(["\n".join(conditions)] if conditions else [])])


def _command(facts: ReportFacts) -> str:
    model = shlex.quote(visible(facts.model, 1000))
    policy = facts.policy.path or f"{facts.policy.name}.yaml" if facts.policy is not None else ""
    option = f" --policy {shlex.quote(visible(policy, 1000))}" if policy else ""
    if facts.outcome is not None:
        return f"quantguard gate {model}{option}"
    if facts.original is not None:
        return f"quantguard verify {model}{option}"
    if facts.hardening is not None:
        schemes = ",".join(scheme.value for scheme in facts.hardening.schemes)
        return f"quantguard harden {model} --scheme {schemes} --calibration PROMPTS.jsonl --out DIRECTORY"
    return f"quantguard scan {model}"
