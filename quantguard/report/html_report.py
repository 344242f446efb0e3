"""The report as one HTML file: findings, the positions of the weights as pictures, and what the rules mean.

It needs nothing beside itself: no script, no network, no font. Names come from whoever made the model; they become
text by `quantguard.report.markup`, and a policy in the page forbids everything else that might be alive in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from quantguard import __version__
from quantguard.core.finding import Finding
from quantguard.core.hardening import HardeningSummary
from quantguard.core.layer import ALL_WEIGHTS, LayerScan
from quantguard.core.verdict import Decision, Subject
from quantguard.core.wording import percent
from quantguard.report.changes import change_text, changed
from quantguard.report.facts import ReportFacts
from quantguard.report.histogram_svg import histogram_figure, legend
from quantguard.report.html_style import STYLE
from quantguard.report.hunts import HUNTED, confirmed, effect_text, effect_words
from quantguard.report.markup import NOTHING, Child, Html, element, join, style_sheet
from quantguard.report.moved_svg import moved_figures
from quantguard.report.rules import RULES, known_as, paragraphs
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
from quantguard.report.text import visible
from quantguard.report.waived import html_sections, with_waivers

MOST_FIGURES: Final = 12
_MOST_FINDINGS: Final = 200
_MOST_LAYERS: Final = 300
_LINE: Final = 1000  # characters about one judge
_OPEN: Final = 10  # rows of these two; the others are folded away
_MOST: Final = 100  # entries of any other list
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_ALL = "all in the JSON report"
_NONE: Final = frozenset[int]()


def render_html(facts: ReportFacts) -> str:
    """The whole page. Long lists are cut and say so: the JSON report holds all of them."""
    title = f"QuantGuard: {facts.model}"
    body = element(
        "main",
        _head(facts),
        html_sections(facts),
        *_why(facts),
        _section("Findings, worst first", _findings(facts.findings or ())),
        _section("Where the weights lie in their rounding cells", _figures(facts.layers)),
        _section("Layers, worst first", _layers(facts.layers)),
        _section("What hardening moved", _moved(facts.hardening)),
        _section("Attack success rate", _rates("behaviour", attack_rows(facts.original, facts.hardened))),
        _section("The judge", _judges(facts)),
        _section("Accuracy lost", _rates("benchmark", benchmark_rows(facts.original, facts.hardened))),
        _section("Perplexity", _perplexities(facts)),
        _section("Counterfactual rounding", _drifts(facts)),
        _section("Weaknesses of the code, by CWE", _weaknesses(facts)),
        _section("Changed by quantization", _list(_changes(facts))),
        _section("Said more often than in full precision", _list(_overuses(facts))),
        _section("Trigger hunting", _hunts(facts)),
        _section("Not measured", _list(unmeasured(facts.original, facts.hardened))),
        _section("In the registry", _list(facts.registry_events)),
        _section("What the rules mean", _rules(_occurring(facts))),
        element("footer", f"QuantGuard {__version__}. The JSON report of the same run holds all figures."),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        style_sheet(STYLE),
    )
    return f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n"


def _section(heading: str, body: Html) -> Html:
    return element("section", element("h2", heading), body) if body else NOTHING


def _head(facts: ReportFacts) -> Html:
    model = element("code", facts.model or "(unnamed)")
    if facts.outcome is not None and facts.verdict is not None:
        what = "hardened derivative of " if facts.promoted is Subject.HARDENED else ""
        badge = element("span", facts.verdict.value, class_=f"verdict {facts.verdict.value}")
        head = [element("p", "QuantGuard, gate", class_="kind"), element("h1", badge, what, model)]
        head += [element("p", facts.unfinished)] if facts.unfinished else []
        head.append(element("p", outcome_text(facts.outcome, registered=facts.registered)))
    else:
        stage = "QuantGuard, scan" if facts.findings is not None else "QuantGuard"
        head = [element("p", stage, class_="kind"), element("h1", model)]
        head.append(element("p", "No verdict: this is a report of single stages."))
    return element("header", *head, _tiles(facts), _particulars(facts))


def _tiles(facts: ReportFacts) -> Html:
    if facts.findings is None:
        return NOTHING
    worst = worst_first(facts.findings)[0].severity.value if facts.findings else "none"
    tiles: list[tuple[str, str, bool | None]] = [  # whether it is bad news; None where it is no news
        ("findings", f"{len(facts.findings)}", bool(facts.findings)),
        ("worst severity", worst, bool(facts.findings)),
    ]
    if facts.layers:
        single = [layer for layer in facts.layers if layer.name != ALL_WEIGHTS]
        suspicious = len({layer.name for layer in single if layer.suspicious})
        tiles.append(("layers measured", f"{len({layer.name for layer in single})}", None))
        tiles.append(("suspicious layers", f"{suspicious}", bool(suspicious)))
    mood = {True: "alarm", False: "calm", None: None}
    items = (element("li", element("strong", said, class_=mood[bad]), what) for what, said, bad in tiles)
    return element("ul", *items, class_="tiles")


def _particulars(facts: ReportFacts) -> Html:
    told = [("Digest", facts.model_digest)] if facts.model_digest else []
    if facts.policy is not None:
        told += [("Policy", f"{facts.policy.name}, {facts.policy.digest}")]
    told += [("Scan", scan_text(facts.findings))]
    if evidence := facts.registry_evidence or facts.evidence:
        told += [("Evidence", evidence)]
    return element("dl", join(join((element("dt", name), element("dd", element("code", said)))) for name, said in told))


def _why(facts: ReportFacts) -> Iterator[Html]:
    if facts.outcome is not None:
        decisions = [decision for decision in (facts.outcome.original, facts.outcome.hardened) if decision is not None]
        yield _section("Why", join(_decision(decision) for decision in decisions))


def _decision(decision: Decision) -> Html:
    failures = decision.failures()
    head = element("h3", f"{decision.subject.value}: {decision.verdict.value}")
    if not failures:
        met = len(decision.reasons) - len(decision.waived())
        return join((head, element("p", f"Every rule of the policy is met ({met}){with_waivers(decision)}.")))
    rows = [
        (reason.outcome.value, _rule_link(reason.rule), reason.where, reason.measured, reason.limit)
        for reason in failures[:_MOST]
    ]
    return join((head, _table(("outcome", "rule", "where", "measured", "limit"), rows), _more(len(failures), _MOST)))


def _findings(findings: Sequence[Finding]) -> Html:
    if not findings:
        return NOTHING
    rows = [
        (
            element("span", finding.severity.value, class_=f"severity {finding.severity.value}"),
            _rule_link(finding.rule),
            element("code", finding.where),
            grid_text(finding) or "-",
            finding.message,
        )
        for finding in worst_first(findings)[:_MOST_FINDINGS]
    ]
    return _folded(("severity", "rule", "where", "grid", "what was seen"), rows, of=len(findings))


def _figures(layers: Sequence[LayerScan]) -> Html:
    kept = [layer for layer in layers if layer.histogram is not None][:MOST_FIGURES]
    if not kept:
        return NOTHING
    how = (
        "Each weight rounds to the level of its cell. Counted here, before any smoothing, is where in their cells the "
        "weights lie, from one rounding boundary to the other, with all cells of a layer laid over each other. Honest "
        "training leaves a smooth density; weights that were moved and had to keep their rounding pile up at the ends."
    )
    return join((element("p", how), legend(), *(histogram_figure(layer, n) for n, layer in enumerate(kept, 1))))


def _moved(summary: HardeningSummary | None) -> Html:
    return NOTHING if summary is None else moved_figures(summary.positions)


def _layers(layers: Sequence[LayerScan]) -> Html:
    if not layers:
        return NOTHING
    heads = ("layer", "grid", "weights", "excess", "distance from the boundary", "p, corrected", "suspicious")
    rows = [
        (
            element("code", layer.name),
            layer.grid,
            f"{layer.weights:,}",
            element("span", percent(layer.share), class_="high" if layer.suspicious else None),
            f"{percent(layer.distance)} of the cell",
            p_value_text(layer.p_value).removeprefix("p ").removeprefix("= "),
            element("span", "yes", class_="severity high") if layer.suspicious else "no",
        )
        for layer in layers[:_MOST_LAYERS]
    ]
    return _folded(heads, rows, of=len(layers), numbers=frozenset({2, 3, 4, 5}))


def _rates(what: str, rows: Sequence[Row]) -> Html:
    if not rows:
        return NOTHING
    cells = [(row.what, row.scheme, row.before or "-", row.after or "-") for row in rows[:_MOST]]
    return join((_table((what, "scheme", "original", "hardened"), cells), _more(len(rows), _MOST)))


def _perplexities(facts: ReportFacts) -> Html:
    rows = perplexity_rows(facts.original, facts.hardened)
    return join((element("p", RISES), _rates("measured", rows))) if rows else NOTHING


def _drifts(facts: ReportFacts) -> Html:
    rows = drift_rows(facts.original, facts.hardened)
    if not rows:
        return NOTHING
    carried = carriers(facts.original, facts.hardened)
    told = (element("p", CARRIERS), _list(carried)) if carried else ()
    return join((element("p", NEAREST), _rates("measured", rows), *told))


def _hunts(facts: ReportFacts) -> Html:
    rows = hunt_rows(facts.original, facts.hardened)
    if not rows:
        return NOTHING
    found = [
        f"{where}: “{visible(effect.trigger)}” {effect_text(effect, hunt)}: "
        f"{' / '.join(map(visible, effect_words(effect)))}"
        for where, effect, hunt in confirmed(facts.original, facts.hardened)
    ]
    return join((element("p", HUNTED), _rates("measured", rows), _list(found)))


def _folded(heads: Sequence[str], rows: Sequence[Sequence[Child]], *, of: int, numbers: frozenset[int] = _NONE) -> Html:
    """A table of the first rows, and below it, to be opened, one of the others; `of` is how many there are in truth."""
    table, others = _table(heads, rows[:_OPEN], numbers), rows[_OPEN:]
    if not others:
        return table
    summary = element("summary", f"and {of - _OPEN} more")
    return join((table, element("details", summary, _table(heads, others, numbers), _more(of, len(rows)))))


def _table(heads: Sequence[str], rows: Iterable[Sequence[Child]], numbers: frozenset[int] = _NONE) -> Html:
    """`numbers` are the columns that are set flush right."""
    kinds = ["number" if place in numbers else None for place in range(len(heads))]
    head = element(
        "tr", *(element("th", word, scope="col", class_=kind) for word, kind in zip(heads, kinds, strict=True))
    )
    body = (
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    )
    return element("div", element("table", element("thead", head), element("tbody", *body)), class_="wide")


def _judges(facts: ReportFacts) -> Html:
    said = _list([visible(line, _LINE) for line in judges(facts.original, facts.hardened)])
    return join((element("p", JUDGED), said)) if said else NOTHING


def _overuses(facts: ReportFacts) -> list[str]:
    return [
        f"{where}: “{visible(overuse.words)}” {overuse_text(overuse)}: {' / '.join(map(visible, overuse.examples))}"
        for where, overuse in overused(facts.original, facts.hardened)
    ]


def _weaknesses(facts: ReportFacts) -> Html:
    rows = weaknesses(facts.original, facts.hardened)
    entries = [f"{where}: {visible(weakness_text(weakness))}" for where, weakness in rows]
    return join((element("p", WEAKNESSES), _list(entries))) if entries else NOTHING


def _changes(facts: ReportFacts) -> list[str]:
    return [
        f"{where}: {change_text(change)}: {' / '.join(map(visible, change.examples))}"
        for where, change in changed(facts.original, facts.hardened)
    ]


def _list(entries: Sequence[str]) -> Html:
    if not entries:
        return NOTHING
    return join((element("ul", *(element("li", entry) for entry in entries[:_MOST])), _more(len(entries), _MOST)))


def _more(count: int, shown: int) -> Html:
    return element("p", f"and {count - shown} more, {_ALL}", class_="more") if count > shown else NOTHING


def _occurring(facts: ReportFacts) -> tuple[str, ...]:
    """Keys of RULES that this report has to explain: of what kept a subject back, then of the findings, worst first."""
    decisions = () if facts.outcome is None else (facts.outcome.original, facts.outcome.hardened)
    reasons = [reason.rule for decision in decisions if decision is not None for reason in decision.failures()]
    found = [finding.rule for finding in worst_first(facts.findings or ())]
    known = (known_as(rule) for rule in dict.fromkeys(reasons + found))
    return tuple(dict.fromkeys(key for key in known if key is not None))


def _rule_link(rule: str) -> Html:
    known = known_as(rule)
    told = element("code", rule)
    return told if known is None else element("a", told, href=f"#{_anchor(known)}")


def _anchor(known: str) -> str:
    return f"rule-{known.replace('*', 'any')}"


def _rules(known: Sequence[str]) -> Html:
    return join(
        element(
            "section",
            element("h3", RULES[key].short),
            element("p", element("code", key)),
            *(element("p", element("strong", heading), text) for heading, text in paragraphs(RULES[key])),
            id=_anchor(key),
            class_="rule",
        )
        for key in known
    )
