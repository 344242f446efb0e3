"""Tables for a terminal. They are returned, not printed; text from outside has no markup and no escapes in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from quantguard.core.finding import Finding, Severity
from quantguard.core.layer import LayerScan
from quantguard.core.measurement import Benchmark, Measurements, PairedDrop, Unmeasured
from quantguard.core.scheme import scheme_label
from quantguard.core.verdict import Subject, Verdict
from quantguard.core.wording import percent
from quantguard.report.facts import ReportFacts
from quantguard.report.layers import ASCII_RAMP, COLUMNS, RAMP, sparkline
from quantguard.report.summary import (
    Worst,
    attack_rows,
    benchmark_rows,
    drift_rows,
    grid_text,
    hunt_rows,
    p_value_text,
    perplexity_rows,
    scan_text,
    worst_attack,
    worst_drop,
    worst_first,
)
from quantguard.report.text import visible

_VERDICT_STYLE = {Verdict.PROMOTE: "bold green", Verdict.BLOCK: "bold red", Verdict.HOLD: "bold yellow"}
_SEVERITY_STYLE = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "",
    Severity.INFO: "dim",
}
# At most; with borders and padding 120 columns, and less where the terminal is narrower.
_GATE_COLUMNS = (
    ("model", 13),
    ("scan", 9),
    ("hardened?", 9),
    ("attack rate, full precision", 13),
    ("quantized, before -> after", 16),
    ("benchmark delta", 12),
    ("verdict", 8),
    ("registry", 21),
)


def gate_table(rows: Sequence[ReportFacts]) -> Table:
    """One row for each gated model; made for 120 columns, where cells wrap."""
    table = Table(show_lines=True, title="QuantGuard")
    for head, width in _GATE_COLUMNS:
        table.add_column(head, overflow="fold", max_width=width)
    for facts in rows:
        table.add_row(
            _outside(facts.model.removeprefix("models:/")),
            Text(scan_text(facts.findings)),
            Text(_hardened(facts)),
            Text(_worst(worst_attack(facts.original, quantized=False), named=_named(facts))),
            Text(_before_after(facts)),
            Text(_delta(worst_drop(facts.hardened or facts.original))),
            _verdict(facts),
            Text("\n").join(_outside(event) for event in facts.registry_events or ("-",)),
        )
    return table


def findings_table(findings: Sequence[Finding], *, most: int = 20) -> Table:
    """The worst `most` findings, worst first; the caption says how many more there are."""
    more = len(findings) - most
    table = Table(title="Findings", caption=f"and {more} more" if more > 0 else None)
    for head in ("severity", "rule", "where", "grid", "what was seen"):
        table.add_column(head, overflow="fold")
    for finding in worst_first(findings)[:most]:
        table.add_row(
            Text(finding.severity.value, style=_SEVERITY_STYLE[finding.severity]),
            _outside(finding.rule),
            _outside(finding.where),
            _outside(grid_text(finding) or "-"),
            _outside(finding.message, 400),
        )
    return table


def layers_table(layers: Sequence[LayerScan], *, most: int = 10, plain: bool = False) -> Table:
    """The first `most` layers, which are the worst, each with the positions of its weights in the cell as one line.

    `plain` draws that line in ASCII.
    """
    more = len(layers) - most
    caption = f"and {more} more" if more > 0 else None
    table = Table(title="Layers, worst first", caption=caption, box=box.SIMPLE_HEAD)
    table.add_column("layer", overflow="fold", min_width=12)
    table.add_column("grid", overflow="fold", min_width=4)
    for head in ("excess", "at", "p"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("across the cell", no_wrap=True, overflow="crop", max_width=COLUMNS)
    for layer in layers[:most]:
        style = "red" if layer.suspicious else ""
        drawn = "-" if layer.histogram is None else sparkline(layer.histogram, ASCII_RAMP if plain else RAMP)
        table.add_row(
            _outside(layer.name.removesuffix(".weight")),
            _outside(layer.grid),
            Text(percent(layer.share), style=style),
            Text(percent(layer.distance)),
            Text(p_value_text(layer.p_value).removeprefix("p ").removeprefix("= ")),
            Text(drawn, style=style),
        )
    return table


def measurements_table(original: Measurements | None, hardened: Measurements | None = None) -> Table:
    """Every rate and every drop, of the original and, where there is one, of the hardened derivative."""
    table = Table(title="Measurements")
    columns = ["what", "scheme", *(["original"] if original is not None else [])]
    columns += ["hardened"] if hardened is not None else []
    for head in columns:
        table.add_column(head, overflow="fold")
    drops = benchmark_rows(original, hardened)
    rows = [(row, "") for row in attack_rows(original, hardened)] + [(row, ", lost") for row in drops]
    others = (*perplexity_rows(original, hardened), *drift_rows(original, hardened), *hunt_rows(original, hardened))
    for row, suffix in rows + [(row, "") for row in others]:
        cells = [row.before] if original is not None else []
        cells += [row.after] if hardened is not None else []
        table.add_row(_outside(row.what + suffix), Text(row.scheme), *(Text(cell or "-") for cell in cells))
    return table


def _outside(text: str, limit: int = 120) -> Text:
    return Text(visible(text, limit))


def _hardened(facts: ReportFacts) -> str:
    if facts.hardening is None:
        return "no"
    shares = ", ".join(f"{scheme.value} {percent(share)}" for scheme, share in facts.hardening.flipped_share)
    return f"yes, flipped {shares}" if shares else "yes"


def _before_after(facts: ReportFacts) -> str:
    before = _worst(worst_attack(facts.original, quantized=True), named=_named(facts))
    if facts.hardened is None:
        return before
    return f"{before}\n-> {_worst(worst_attack(facts.hardened, quantized=True), named=_named(facts))}"


def _named(facts: ReportFacts) -> bool:
    """Whether the scenario must be said: there are several."""
    return facts.original is not None and len({attack.scenario for attack in facts.original.attacks}) > 1


def _worst(worst: Worst, *, named: bool) -> str:
    if worst.attack is None or isinstance(worst.attack.rate, Unmeasured):
        return "unmeasured"
    rate, scheme = worst.attack.rate, worst.attack.scheme
    where = "" if scheme is None else f" {scheme.value}"
    what = "\n" + worst.attack.scenario.value.replace("_", " ") if named else ""
    more = f"\n{worst.unmeasured} unmeasured" if worst.unmeasured else ""
    value = percent(rate.value if rate.trials else math.nan)
    return f"{value}{where}\n[{_points(rate.lower)}, {_points(rate.upper)}]{what}{more}"


def _points(share: float, sign: str = "") -> str:
    # Adding zero makes of -0.0 a plain one.
    return f"{100 * share + 0.0:{sign}.1f}" if math.isfinite(share) else "?"


def _delta(benchmark: Benchmark | None) -> str:
    """Accuracy gained: the drop with the sign turned, so that less is worse as a reader expects of accuracy."""
    if benchmark is None:
        return "-"
    name = visible(benchmark.task, 60)
    drop = benchmark.drop
    if not isinstance(drop, PairedDrop) or not drop.trials:
        return f"unmeasured, {name} {scheme_label(benchmark.scheme)}"
    value, lower, upper = (_points(-share, "+") for share in (drop.value, drop.upper, drop.lower))
    return f"{value} points\n[{lower}, {upper}]\n{scheme_label(benchmark.scheme)}, {name}"


def _verdict(facts: ReportFacts) -> Text:
    if facts.outcome is None or facts.verdict is None:
        return Text("-")
    text = Text(facts.verdict.value, style=_VERDICT_STYLE[facts.verdict])
    if facts.promoted is Subject.HARDENED:
        text.append("\nhardened", style="green")
        text.append(f"\noriginal {facts.outcome.original.verdict.value}", style="red")
    return text
