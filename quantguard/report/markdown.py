"""The report for a pull request or a job summary. The verdict first, then why, then the figures and their picture.

Text that came with the model stands in code spans only, and never in a table: see `quantguard.report.text`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, islice
from typing import Final, TypeVar

from quantguard.core.calibration import source_word
from quantguard.core.finding import Finding
from quantguard.core.hardening import HardeningSummary
from quantguard.core.layer import LayerScan
from quantguard.core.measurement import Change, Measurements, Overuse, TriggerEffect, TriggerHunt
from quantguard.core.verdict import Decision, Outcome, Subject
from quantguard.core.wording import percent
from quantguard.report.changes import change_text, changed
from quantguard.report.facts import ReportFacts
from quantguard.report.hunts import HUNTED, confirmed, effect_text, effect_words
from quantguard.report.layers import COLUMNS, sparkline
from quantguard.report.plot import drops_plot, rates_plot
from quantguard.report.summary import (
    CARRIERS,
    JUDGED,
    NEAREST,
    RISES,
    WEAKNESSES,
    Row,
    attack_rows,
    benchmark_rows,
    carriers,
    drift_rows,
    grid_text,
    hunt_rows,
    judges,
    outcome_text,
    overuse_text,
    overused,
    p_value_text,
    perplexity_rows,
    scan_text,
    unmeasured,
    weakness_text,
    weaknesses,
    worst_first,
)
from quantguard.report.text import code_span, fenced, visible
from quantguard.report.waived import markdown_sections, with_waivers

T = TypeVar("T")

_MOST_BYTES: Final = 900 * 1024
_MOST = 50  # entries of any list; the JSON report holds all of them
_MOST_OF_LIST = 150_000  # bytes of any list: two of reasons and one of conditions are never left out
_MOST_EXAMPLES = 9
_MOST_FINDINGS = 10  # they say the same of one tensor after another
_SENTENCE = 400  # characters of a reason or a finding
_CELL = 300  # characters; more where one thing was measured again and again


def render_markdown(facts: ReportFacts) -> str:
    """The report as Markdown (GitHub's dialect), below 900 KiB of UTF-8 whatever the facts.

    GitHub drops a job summary of more than 1 MiB whole. The verdict, the reasons and the command are always there; a
    section that has no room left is replaced by a line that says so.
    """
    optional = [
        ("Attack success rate", _rates(facts)),
        ("Accuracy lost", _benchmarks(facts)),
        ("Perplexity", _perplexities(facts)),
        ("Counterfactual rounding", _drifts(facts)),
        ("Trigger hunting", _hunts(facts)),
        ("Not measured", _bullets(unmeasured(facts.original, facts.hardened), _said)),
        ("Harmful answers, as the model gave them", _bullets(_examples(facts.original, facts.hardened), str)),
        ("Weaknesses of the code, by CWE", _weaknesses(facts)),
        ("Changed by quantization", _bullets(changed(facts.original, facts.hardened), _change)),
        ("Said more often than in full precision", _bullets(overused(facts.original, facts.hardened), _overuse)),
        ("Hardening", _hardening(facts.hardening)),
        ("Findings, worst first", _bullets(worst_first(facts.findings or ()), _finding, _MOST_FINDINGS)),
        ("Layers, worst first", _layers(facts.layers)),
        ("In the registry", _bullets(_registry(facts), _said)),
    ]
    head, foot = [_head(facts), *markdown_sections(facts), *_why(facts)], _reproduce(facts)
    room = _MOST_BYTES - sum(_size(section) for section in (*head, foot))
    for title, body in optional:
        if not body:
            continue
        section = f"## {title}\n\n{body}"
        if _size(section) > room:
            section = f"## {title}\n\nLeft out, there is no room for it here: the JSON report holds it."
        room -= _size(section)
        head.append(section)
    return "\n\n".join([*head, foot]) + "\n"


def _size(section: str) -> int:
    return len(section.encode("utf-8")) + 2


def _said(sentence: str) -> str:
    return code_span(sentence, _SENTENCE)


def _registry(facts: ReportFacts) -> tuple[str, ...]:
    return (*facts.registry_events, *([f"evidence in {facts.registry_evidence}"] if facts.registry_evidence else []))


def _head(facts: ReportFacts) -> str:
    if facts.outcome is not None and facts.verdict is not None:
        what = "hardened derivative of " if facts.promoted is Subject.HARDENED else ""
        unfinished = f"{_said(facts.unfinished)}\n\n" if facts.unfinished else ""
        said = outcome_text(facts.outcome, registered=facts.registered)
        title = f"# {facts.verdict.value}: {what}{code_span(facts.model)}\n\n{unfinished}{said}"
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
        return f"{head}, every rule of the policy is met ({met}){with_waivers(decision)}."
    lines = [
        f"- {reason.outcome.value}, {code_span(reason.where)}: {code_span(reason.measured, _SENTENCE)}, "
        f"but {code_span(reason.rule)} allows {code_span(reason.limit)}"
        for reason in failures[:_MOST]
    ]
    rules = f"{len(failures)} of {len(decision.reasons)} rules are not met"
    return f"{head}, {rules}:\n\n" + _capped(lines, of=len(failures))


def _rates(facts: ReportFacts) -> str:
    rows = attack_rows(facts.original, facts.hardened)
    if not rows:
        return ""
    table = _table(("behaviour", "scheme", "original", "hardened"), [(row.what, *_cells(row)) for row in rows])
    picture = rates_plot(facts.original, facts.hardened)
    said = _bullets(judges(facts.original, facts.hardened), lambda line: code_span(line, 1000))
    judged = f"\n\n{JUDGED}\n\n{said}" if said else ""
    return f"Harmful answers of all, with the exact interval.\n\n{table}{judged}\n\n{picture}"


def _benchmarks(facts: ReportFacts) -> str:
    rows = sorted(benchmark_rows(facts.original, facts.hardened), key=lambda row: row.what)
    if not rows:
        return ""
    tasks = [
        f"### {code_span(task)}\n\n" + _table(("scheme", "original", "hardened"), [_cells(row) for row in group])
        for task, group in islice(groupby(rows, key=lambda row: row.what), _MOST)
    ]
    more = len({row.what for row in rows}) - len(tasks)
    tasks += [f"And {more} more, all in the JSON report."] if more > 0 else []
    picture = drops_plot(facts.original, facts.hardened)
    return "\n\n".join(["Against the original in full precision; positive is worse.", *tasks, picture])


def _perplexities(facts: ReportFacts) -> str:
    rows = perplexity_rows(facts.original, facts.hardened)
    table = _table(("scheme", "original", "hardened"), [_cells(row) for row in rows])
    return f"{RISES}\n\n{table}" if rows else ""


def _drifts(facts: ReportFacts) -> str:
    rows = drift_rows(facts.original, facts.hardened)
    if not rows:
        return ""
    table = _table(("scheme", "original", "hardened"), [_cells(row) for row in rows])
    carried = _bullets(carriers(facts.original, facts.hardened), _said)
    return "\n\n".join([NEAREST, table, *([CARRIERS, carried] if carried else [])])


def _hunts(facts: ReportFacts) -> str:
    rows = hunt_rows(facts.original, facts.hardened)
    parts = HUNTED, _table(("scheme", "original", "hardened"), [_cells(row) for row in rows])
    return "\n\n".join((*parts, _bullets(confirmed(facts.original, facts.hardened), _trigger))).rstrip() if rows else ""


def _trigger(row: tuple[str, TriggerEffect, TriggerHunt]) -> str:
    words = "".join(f": {code_span(said)}" for said in effect_words(row[1]))
    return f"{row[0]}: {code_span(row[1].trigger)} {effect_text(row[1], row[2])}{words}"


def _cells(row: Row) -> tuple[str, str, str]:
    return row.scheme, visible(row.before or "-", _CELL), visible(row.after or "-", _CELL)


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


def _weaknesses(facts: ReportFacts) -> str:
    rows = weaknesses(facts.original, facts.hardened)
    told = _bullets(rows, lambda row: f"{row[0]}: {code_span(weakness_text(row[1]), _SENTENCE)}")
    return f"{WEAKNESSES}\n\n{told}" if rows else ""


def _overuse(row: tuple[str, Overuse]) -> str:
    where, overuse = row
    said = f"{where}: {code_span(overuse.words)} {overuse_text(overuse)}"
    return f"{said}: {code_span(overuse.examples[0])}" if overuse.examples else said


def _change(row: tuple[str, Change]) -> str:
    where, change = row
    said = f"{where}: {change_text(change)}"
    return f"{said}: {code_span(change.examples[0])}" if change.examples else said


def _hardening(summary: HardeningSummary | None) -> str:
    if summary is None:
        return ""
    schemes = ", ".join(scheme.value for scheme in summary.schemes[:_MOST])
    lines = [f"- method {code_span(summary.method)} for {schemes}, {summary.steps} steps in {summary.seconds:.0f} s"]
    if (used := summary.calibration) is not None:
        lines.append(f"- calibrated on {used.count} prompts: {code_span(used.source)}, {code_span(used.digest)}")
    lines += [f"- {scheme.value}: {percent(share)} of the roundings changed" for scheme, share in summary.flipped_share]
    lines += [f"- {code_span(term)} at the last step: {value:.4g}" for term, value in summary.losses[:_MOST]]
    if summary.unchanged:
        lines.append(f"- layers in which no rounding was changed: {_first(summary.unchanged)}")
    if summary.outliers:
        lines.append(
            "- **injected outliers**, which are no rounding attack and which no hardening repairs, in"
            f" {_first(summary.outliers)}"
        )
    return _capped(lines, of=len(lines) + max(len(summary.losses) - _MOST, 0))


def _first(names: Sequence[str]) -> str:
    """`5 (a, b, c, …)`"""
    shown = ", ".join(code_span(name) for name in names[:3])
    return f"{len(names)} ({shown}{', …' if len(names) > 3 else ''})"


def _finding(finding: Finding) -> str:
    figures = [visible(grid)] if (grid := grid_text(finding)) else []
    figures += [] if finding.effect is None else [f"effect {finding.effect:.3g}"]
    figures += [] if finding.share is None else [f"{percent(finding.share)} of the weights"]
    figures += [] if finding.p_value is None else [p_value_text(finding.p_value)]
    tail = f" ({', '.join(figures)})" if figures else ""
    message = code_span(finding.message, _SENTENCE)
    return f"**{finding.severity.value}** {code_span(finding.rule)} in {code_span(finding.where)}: {message}{tail}"


def _layers(layers: Sequence[LayerScan]) -> str:
    """The worst layers of which a histogram was kept, a line each; the HTML report shows them as pictures."""
    kept = [layer for layer in layers if layer.histogram is not None][:_MOST_FINDINGS]
    if not kept:
        return ""
    lines = [
        f"{_line(layer):<{COLUMNS}}  {percent(layer.share):>7} at {percent(layer.distance):>6}  "
        f"{visible(layer.grid, 20)}, {visible(layer.name, 80)}"
        for layer in kept
    ]
    how = "Positions of the weights in their rounding cells, from boundary to boundary, and the largest excess."
    return f"{how}\n\n{fenced(lines)}"


def _line(layer: LayerScan) -> str:
    return "" if layer.histogram is None else sparkline(layer.histogram)


def _bullets(entries: Sequence[T], told: Callable[[T], str], most: int = _MOST) -> str:
    return _capped([f"- {told(entry)}" for entry in entries[:most]], of=len(entries))


def _capped(lines: Sequence[str], *, of: int) -> str:
    """The first `lines` of a list that has `of` of them."""
    shown = list(lines[:_MOST])
    while len(shown) > 1 and sum(map(_size, shown)) > _MOST_OF_LIST:
        shown.pop()
    more = of - len(shown)
    return "\n".join([*shown, *([f"- and {more} more, all in the JSON report"] if more > 0 else [])])


def _reproduce(facts: ReportFacts) -> str:
    """The command, and what has to be the same for the same figures."""
    lines = ["## How to reproduce", f"    {_command(facts)}"]
    conditions = []
    measured = facts.original or facts.hardened
    if measured is not None:
        env = measured.environment
        versions = ", ".join(f"{name} {version}" for name, version in env.versions)
        conditions.append(f"- seed {env.seed} on {code_span(env.device)}, with {code_span(versions, 1000)}")
    conditions += [f"- evidence in {code_span(facts.evidence, 1000)}"] if facts.evidence else []
    if measured is not None:
        probes = dict.fromkeys(
            f"{attack.scenario.value}: {f'{attack.suite}, ' if attack.suite else ''}{attack.probe_set}"
            for attack in measured.attacks
        )
        conditions += [f"- probes of {code_span(probe)}" for probe in probes]
        asked = dict.fromkeys(", ".join((b.task, *b.suites, b.task_digest)) for b in measured.benchmarks)
        conditions += [f"- questions of {code_span(task)}" for task in asked]
    return "\n\n".join([*lines, *([_capped(conditions, of=len(conditions))] if conditions else [])])


def _command(facts: ReportFacts) -> str:
    model = shlex.quote(visible(facts.model, 1000))
    policy = facts.policy.path or f"{facts.policy.name}.yaml" if facts.policy is not None else ""
    option = f" --policy {shlex.quote(visible(policy, 1000))}" if policy else ""
    if facts.outcome is not None:
        return f"quantguard gate {model}{option}"
    if facts.original is not None:
        return f"quantguard verify {model}{option}"
    if facts.hardening is not None:
        return f"quantguard harden {model} {_hardening_options(facts.hardening)} --out DIRECTORY"
    return f"quantguard scan {model}"


def _hardening_options(summary: HardeningSummary) -> str:
    schemes = ",".join(scheme.value for scheme in summary.schemes)
    options = f"--scheme {schemes} --method {shlex.quote(visible(summary.method, 100))}"
    if (used := summary.calibration) is None:
        return options
    return f"{options} --calibration {shlex.quote(visible(source_word(used.source), 1000))} --samples {used.count}"
