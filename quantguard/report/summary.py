"""What every format tells, before it has a form: rows, worst cases and sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, assert_never

from quantguard.core.finding import Finding
from quantguard.core.measurement import (
    AttackSuccess,
    Benchmark,
    Divergence,
    JudgedRate,
    Measurements,
    Overuse,
    PairedDrop,
    Perplexity,
    Rate,
    Unmeasured,
    Weakness,
)
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.core.verdict import Decision, GateOutcome, Subject, Verdict
from quantguard.core.wording import (
    divergence_text,
    drop_text,
    judged_text,
    loss_text,
    percent,
    rate_text,
    rise_text,
    trigger_text,
)
from quantguard.report.attacks import of_attacks
from quantguard.report.hunts import HUNTING
from quantguard.report.waived import with_waivers

NOT_MEASURED = "unmeasured"
COUNTERFACTUAL = "counterfactual rounding"
NEAREST = (
    "How far the quantized model lies from full precision on the policy's texts, as a multiple of how far random "
    "roundings of the same weights do, with its interval. Rounding to nearest should be the gentlest: about 1 or below."
)
JUDGED = (
    "Rates by a judge are corrected for what it gets wrong, with an interval that covers its errors too; a text of the "
    "model may have tried to mislead it. Its word on labelled answers:"
)
PERPLEXITY = "perplexity"
RISES = (
    "Perplexity on the policy's texts, and by how much it is higher than that of the original in full precision, with "
    "its interval; of a hardened copy also against its own full precision. Positive is worse."
)
CARRIERS = "Share of it that is gone once one block alone is rounded at random; they need not add up:"
WEAKNESSES = (
    "Of all answers, those in whose code an analyser finds the weakness, with the interval; gained and lost against "
    "full precision's answers to the same probes. One answer may hold several."
)
_BLOCKS = 5  # named of each measurement
_RULES = 5  # named of each weakness


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity, of the original and of the hardened derivative. Our own words and figures only."""

    what: str  # scenario, or the name of a benchmark: that one comes from outside
    scheme: str
    before: str  # empty where there are no measurements of the original
    after: str  # empty where there is no hardened derivative


@dataclass(frozen=True, slots=True)
class Worst:
    """The measurement with the highest upper bound, and how many more could not be measured."""

    attack: AttackSuccess | None
    unmeasured: int


def attack_rows(original: Measurements | None, hardened: Measurements | None) -> tuple[Row, ...]:
    """Attack rates by scenario and scheme; the unparsable, the judged and the discovered share as rows of their own."""
    kinds = (_rates, _shares, _judged)
    return tuple(row for figures in kinds for row in _pair(original, hardened, figures))


def benchmark_rows(original: Measurements | None, hardened: Measurements | None) -> tuple[Row, ...]:
    """Accuracy lost against the original in full precision, by task and scheme."""
    return _pair(original, hardened, _drops)


def drift_rows(original: Measurements | None, hardened: Measurements | None) -> tuple[Row, ...]:
    """How far rounding to nearest lies from full precision, as a multiple of rounding at random, by scheme."""
    return _pair(original, hardened, _drifts)


def perplexity_rows(original: Measurements | None, hardened: Measurements | None) -> tuple[Row, ...]:
    """Perplexity by scheme, and what it rose."""
    return _pair(original, hardened, _perplexities)


def _perplexities(measurements: Measurements) -> Iterable[tuple[str, Scheme | None, str]]:
    return ((PERPLEXITY, p.scheme, short_perplexity(p)) for p in measurements.perplexities)


def hunt_rows(original: Measurements | None, hardened: Measurements | None) -> tuple[Row, ...]:
    """How many triggers were confirmed, and the worst that was followed up, by scheme."""
    return _pair(original, hardened, _hunts)


def _drifts(measurements: Measurements) -> Iterable[tuple[str, Scheme | None, str]]:
    return ((COUNTERFACTUAL, d.scheme, short_divergence(d.divergence)) for d in measurements.drifts)


def _hunts(measurements: Measurements) -> Iterable[tuple[str, Scheme | None, str]]:
    for hunt in measurements.hunts:
        yield HUNTING, hunt.scheme, NOT_MEASURED if isinstance(hunt.found, Unmeasured) else trigger_text(hunt.found)


def _rates(measurements: Measurements) -> Iterable[tuple[str, Scheme | None, str]]:
    return ((a.scenario.value, a.scheme, short_rate(a.rate)) for a in measurements.attacks)


def _shares(measurements: Measurements) -> Iterable[tuple[str, Scheme | None, str]]:
    for attack in measurements.attacks:
        if attack.unparsable is not None:
            yield f"{attack.scenario.value}, unparsable", attack.scheme, short_rate(attack.unparsable)
        if attack.discovered is not None:
            yield f"{attack.scenario.value}, discovered words too", attack.scheme, short_rate(attack.discovered)


def _judged(measurements: Measurements) -> Iterable[tuple[str, Scheme | None, str]]:
    for attack in measurements.attacks:
        if attack.judged is not None:
            said = NOT_MEASURED if isinstance(attack.judged, Unmeasured) else judged_text(attack.judged)
            yield f"{attack.scenario.value}, judged", attack.scheme, said.removeprefix("judged ")


def _drops(measurements: Measurements) -> Iterable[tuple[str, Scheme | None, str]]:
    return ((b.task, b.scheme, short_drop(b.drop)) for b in measurements.benchmarks)


def _pair(
    original: Measurements | None,
    hardened: Measurements | None,
    figures: Callable[[Measurements], Iterable[tuple[str, Scheme | None, str]]],
) -> tuple[Row, ...]:
    """Rows in the order in which they were measured; a quantity that was measured twice shows both figures."""
    cells: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for side, measurements in enumerate((original, hardened)):
        for what, scheme, said in figures(measurements) if measurements is not None else ():
            cells.setdefault((what, scheme_label(scheme)), ([], []))[side].append(said)
    return tuple(Row(what, scheme, "; ".join(b), "; ".join(a)) for (what, scheme), (b, a) in cells.items())


def short_rate(rate: Rate | Unmeasured) -> str:
    return NOT_MEASURED if isinstance(rate, Unmeasured) else rate_text(rate)


def short_drop(drop: PairedDrop | Unmeasured) -> str:
    return NOT_MEASURED if isinstance(drop, Unmeasured) else drop_text(drop)


def short_divergence(divergence: Divergence | Unmeasured) -> str:
    return NOT_MEASURED if isinstance(divergence, Unmeasured) else divergence_text(divergence)


def short_perplexity(row: Perplexity) -> str:
    """`perplexity 12.3 (...), +4.1 % [3.2 %, 5.0 %]`, and where that is another figure, against its own."""
    if isinstance(row.loss, Unmeasured):
        return NOT_MEASURED
    rise, own = (NOT_MEASURED if isinstance(r, Unmeasured) else rise_text(r) for r in (row.rise, row.own_rise))
    told = f"{loss_text(row.loss)}, {rise}"
    return told if own == rise else f"{told}, against its own full precision {own}"


def unmeasured(*all_measurements: Measurements | None) -> tuple[str, ...]:
    """Why what could not be measured could not: one line for each reason, with what it concerns. Untrusted text."""
    concerned: dict[str, list[str]] = {}
    for measurements in all_measurements:
        for name, scheme, value in _values(measurements):
            if isinstance(value, Unmeasured):
                concerned.setdefault(value.reason, []).append(f"{name} {scheme_label(scheme)}")
    return tuple(f"{', '.join(dict.fromkeys(what))}: {reason}" for reason, what in concerned.items())


def _values(measurements: Measurements | None) -> Iterable[tuple[str, Scheme | None, Any]]:
    if measurements is not None:
        for attack in measurements.attacks:
            yield attack.scenario.value, attack.scheme, attack.rate
            yield f"{attack.scenario.value}, judged", attack.scheme, attack.judged
        for benchmark in measurements.benchmarks:
            yield benchmark.task, benchmark.scheme, benchmark.drop
        for drift in measurements.drifts:
            yield COUNTERFACTUAL, drift.scheme, drift.divergence
        for row in measurements.perplexities:
            yield PERPLEXITY, row.scheme, row.rise
        for hunt in measurements.hunts:
            yield HUNTING, hunt.scheme, hunt.found


def overused(*all_measurements: Measurements | None) -> tuple[tuple[str, Overuse], ...]:
    """What a quantized model says more often than its own full precision: where, in our words, and the words."""
    return of_attacks(lambda attack: attack.overused, all_measurements)


def overuse_text(overuse: Overuse) -> str:
    """`in 200 of 200 answers, 0 in full precision`."""
    return f"in {overuse.answers} of {overuse.asked} answers, {overuse.reference} in full precision"


def weaknesses(*all_measurements: Measurements | None) -> tuple[tuple[str, Weakness], ...]:
    """What is wrong with the code of the answers: where, in our words, and each kind that was found."""
    return of_attacks(lambda attack: attack.weaknesses, all_measurements)


def weakness_text(weakness: Weakness) -> str:
    """`CWE-78 in 3 of 60, 5.0 % [1.0 %, 13.9 %], gained 2, lost 0, by bandit (B602 subprocess)`. Untrusted text."""
    kind = f"CWE-{weakness.cwe}" if weakness.cwe else "no CWE"
    known = weakness.gained is not None and weakness.lost is not None
    change = f", gained {weakness.gained}, lost {weakness.lost}" if known else ""
    rules = ", ".join(weakness.rules[:_RULES]) + (", ..." if len(weakness.rules) > _RULES else "")
    return f"{kind} in {rate_text(weakness.rate)}{change}, by {weakness.tool.value} ({rules})"


def judges(*all_measurements: Measurements | None) -> tuple[str, ...]:
    """Who judged, asked what, and how often each errs on the labelled answers: a line each. Names from outside."""
    said = (
        attack.judged
        for measurements in all_measurements
        if measurements is not None
        for attack in measurements.attacks
        if isinstance(attack.judged, JudgedRate)
    )
    return tuple(dict.fromkeys(map(_judge, said)))


def _judge(judged: JudgedRate) -> str:
    misled = judged.misled
    return (
        f"{judged.model}, asked {judged.prompt}: of labelled refusals it saw {rate_text(judged.sensitivity)}, and "
        f"{misled.successes} of {misled.trials} that told it to say otherwise; of labelled answers that do not refuse "
        f"it let pass {rate_text(judged.specificity)}; {judged.unreadable} replies could not be read"
    )


def carriers(*all_measurements: Measurements | None) -> tuple[str, ...]:
    """The blocks that what rounding to nearest changes hangs on: a line for each scheme where it was followed."""
    return tuple(
        f"{measurements.subject.value}, {drift.scheme.value}: {_blocks(drift.divergence)}"
        for measurements in all_measurements
        if measurements is not None
        for drift in measurements.drifts
        if not isinstance(drift.divergence, Unmeasured) and drift.divergence.layers
    )


def _blocks(divergence: Divergence) -> str:
    told = ", ".join(f"{name} {percent(share)}" for name, share in divergence.layers[:_BLOCKS])
    more = len(divergence.layers) - _BLOCKS
    return f"{told} and {more} more" if more > 0 else told


def worst_attack(measurements: Measurements | None, *, quantized: bool) -> Worst:
    """Among the schemes, or in full precision."""
    attacks = measurements.attacks if measurements is not None else ()
    wanted = [attack for attack in attacks if (attack.scheme is not None) is quantized]
    known = [attack for attack in wanted if isinstance(attack.rate, Rate)]
    return Worst(max(known, key=_upper, default=None), len(wanted) - len(known))


def _upper(attack: AttackSuccess) -> float:
    rate = attack.rate
    return math.inf if isinstance(rate, Unmeasured) or math.isnan(rate.upper) else rate.upper


def worst_drop(measurements: Measurements | None) -> Benchmark | None:
    """The benchmark that lost most under a scheme; one that was not measured counts as the worst."""
    benchmarks = measurements.benchmarks if measurements is not None else ()
    return max((b for b in benchmarks if b.scheme is not None), key=_lost, default=None)


def _lost(benchmark: Benchmark) -> float:
    drop = benchmark.drop
    return math.inf if isinstance(drop, Unmeasured) or math.isnan(drop.upper) else drop.upper


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By severity, then by the share of the weights concerned, as layers are ordered, then by effect size and place."""
    return tuple(sorted(findings, key=lambda f: (-f.severity.rank, -_or_0(f.share), -_or_0(f.effect), f.rule, f.where)))


def _or_0(value: float | None) -> float:
    return value if value is not None and not math.isnan(value) else 0.0


def grid_text(finding: Finding) -> str:
    """The grid that a finding is about, as schemes are written; empty where it is about none."""
    return finding.scheme.value if finding.scheme is not None else finding.grid


def p_value_text(value: float) -> str:
    """`p = 2e-30`; one that is too small for a float is not zero."""
    return f"p = {value:.2g}" if value > 0 or math.isnan(value) else "p < 1e-300"


def scan_text(findings: tuple[Finding, ...] | None) -> str:
    """`clean`, `3 findings, worst high`, or `not scanned`."""
    if findings is None:
        return "not scanned"
    if not findings:
        return "clean"
    plural = "s" if len(findings) > 1 else ""
    return f"{len(findings)} finding{plural}, worst {worst_first(findings)[0].severity.value}"


def outcome_text(outcome: GateOutcome, *, registered: bool = True) -> str:
    """What may happen to the model, in one sentence. One that is not registered is a directory."""
    if outcome.promoted is Subject.ORIGINAL:
        return f"The original may be promoted as it is{with_waivers(outcome.original)}."
    told = f"The original {_said(outcome.original)}"
    if outcome.hardened is None:
        return f"{told}; nothing was hardened."
    if outcome.promoted is Subject.HARDENED:
        may = "derivative may be promoted" if registered else "copy passes: use that one instead"
        return f"{told}; its hardened {may}{with_waivers(outcome.hardened)}."
    return f"{told}; its hardened derivative {_said(outcome.hardened)}."


def _said(decision: Decision) -> str:
    match decision.verdict:
        case Verdict.PROMOTE:
            return "may be promoted"
        case Verdict.BLOCK:
            return "is blocked"
        case Verdict.HOLD:
            return "is held, because not everything could be measured"
        case _:
            assert_never(decision.verdict)
