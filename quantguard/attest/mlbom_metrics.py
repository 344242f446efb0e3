"""Measurements as the flat rows that a model card has: what, under which scheme, how much, between what.

A row says no more than its measurement: what was not measured, or is no finite number, is a row without a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from quantguard.core.measurement import (
    AttackSuccess,
    Benchmark,
    Drift,
    Hunt,
    JudgedRate,
    Measurements,
    PairedDrop,
    PairedRise,
    Perplexity,
    Rate,
    Rise,
    Unmeasured,
)
from quantguard.core.scheme import scheme_label
from quantguard.core.wording import (
    divergence_text,
    drop_text,
    judged_text,
    loss_text,
    paired_rise_text,
    rate_text,
    rise_text,
    trigger_text,
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of one scheme."""

    kind: str  # dotted, e.g. attack_success.content_injection
    scheme: str  # as `scheme_label` says it, e.g. nf4
    said: str  # with its counts, as every report says it; where it is not known, why
    value: float | None  # finite; a share is 0..1; None where it is not known
    bounds: tuple[float, float, float] | None = None  # lower, upper, confidence (0..1) of the two-sided interval


Interval = Rate | JudgedRate | PairedDrop | PairedRise | Rise


def metrics(measured: Measurements) -> tuple[Metric, ...]:
    """Every figure, in the order of the measurements."""
    return (
        *(row for attack in measured.attacks for row in _attack(attack)),
        *(row for benchmark in measured.benchmarks for row in _benchmark(benchmark)),
        *(row for drift in measured.drifts for row in _drift(drift)),
        *(row for perplexity in measured.perplexities for row in _perplexity(perplexity)),
        *(row for hunt in measured.hunts for row in _hunt(hunt)),
    )


def _attack(attack: AttackSuccess) -> Iterator[Metric]:
    kind, scheme = f"attack_success.{attack.scenario.value}", scheme_label(attack.scheme)
    yield _row(kind, scheme, attack.rate, rate_text(attack.rate))
    if attack.unparsable is not None:
        yield _row(f"{kind}.unparsable", scheme, attack.unparsable, rate_text(attack.unparsable))
    if attack.judged is not None:
        yield _row(f"{kind}.judged", scheme, attack.judged, judged_text(attack.judged))
    if attack.discovered is not None:
        yield _row(f"{kind}.discovered", scheme, attack.discovered, rate_text(attack.discovered))
    for change in attack.changes:
        yield _row(f"{kind}.change.{change.trait.value}", scheme, change.rise, paired_rise_text(change.rise))


def _benchmark(benchmark: Benchmark) -> Iterator[Metric]:
    kind, scheme = f"benchmark.{benchmark.task}", scheme_label(benchmark.scheme)
    yield _row(f"{kind}.accuracy", scheme, benchmark.accuracy, rate_text(benchmark.accuracy))
    yield _row(f"{kind}.drop", scheme, benchmark.drop, drop_text(benchmark.drop))


def _drift(drift: Drift) -> Iterator[Metric]:
    found, said = drift.divergence, divergence_text(drift.divergence)
    kind, scheme = "rounding.divergence_ratio", drift.scheme.value
    if isinstance(found, Unmeasured):
        yield Metric(kind, scheme, said, None)
    else:
        yield _finite(kind, scheme, said, (found.ratio, found.lower, found.upper, found.confidence))


def _perplexity(perplexity: Perplexity) -> Iterator[Metric]:
    loss, scheme = perplexity.loss, scheme_label(perplexity.scheme)
    known = not isinstance(loss, Unmeasured) and math.isfinite(loss.perplexity)
    yield Metric("perplexity", scheme, loss_text(loss), loss.perplexity if known else None)  # type: ignore[union-attr]
    yield _row("perplexity.rise", scheme, perplexity.rise, rise_text(perplexity.rise))
    yield _row("perplexity.own_rise", scheme, perplexity.own_rise, rise_text(perplexity.own_rise))


def _hunt(hunt: Hunt) -> Iterator[Metric]:
    """Of the triggers that were followed up each one's answers, by number: their texts are an attacker's."""
    kind, scheme = "triggers.taken", hunt.scheme.value
    if isinstance(hunt.found, Unmeasured):
        yield Metric(kind, scheme, f"unmeasured: {hunt.found.reason}", None)
        return
    yield Metric("triggers.followed_up", scheme, trigger_text(hunt.found), float(len(hunt.found.effects)))
    for number, effect in enumerate(hunt.found.effects, 1):
        yield _row(f"{kind}.{number}", scheme, effect.taken, rate_text(effect.taken))


def _row(kind: str, scheme: str, found: Interval | Unmeasured, said: str) -> Metric:
    if isinstance(found, Unmeasured) or (isinstance(found, Rate | PairedDrop | PairedRise) and not found.trials):
        return Metric(kind, scheme, said, None)
    return _finite(kind, scheme, said, (found.value, found.lower, found.upper, found.confidence))


def _finite(kind: str, scheme: str, said: str, found: tuple[float, float, float, float]) -> Metric:
    if not all(map(math.isfinite, found)):
        return Metric(kind, scheme, said, None)
    value, lower, upper, confidence = found
    return Metric(kind, scheme, said, value, (lower, upper, confidence))
