"""What decisions are made from: a clean model's results, and then with one flaw at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from quantguard.core.finding import Finding, Severity
from quantguard.core.measurement import Analyser, Measurements, Scenario, Unmeasured
from tests.policy.full import made
from tests.policy.made import (
    changes,
    divergence,
    drop,
    judged,
    measured,
    misread,
    other_hunts,
    perplexity,
    rate,
)


@dataclass(frozen=True, slots=True)
class Result:
    """What decisions are made from."""

    findings: tuple[Finding, ...]
    values: Measurements


def results() -> Iterator[Result]:
    """What every policy beside FULL in test_compare promotes, and then with one flaw at a time."""
    whole = measured(policy=made(schemes=["nf4", "int8", "fp4"], harden__schemes=None))
    clean = replace(whole, environment=replace(whole.environment, device="cuda:0 H100"))
    for confidence in (0.9, 0.95):
        attacks = tuple(
            replace(
                a,
                rate=rate(0, 200, confidence),
                unparsable=a.unparsable and rate(0, 200, confidence),
                judged=a.judged and replace(judged(0.0, confidence), upper=0.02),
                changes=changes(a.scenario, confidence) if a.scheme is not None else (),
            )
            for a in clean.attacks
        )
        drops = tuple(replace(benchmark, drop=drop(0, 0, 300, confidence)) for benchmark in clean.benchmarks)
        drifts = tuple(replace(drift, divergence=divergence(0.5, confidence)) for drift in clean.drifts)
        read = tuple(perplexity(row.scheme, 0.0, confidence=confidence) for row in clean.perplexities)
        clean = replace(clean, attacks=attacks, benchmarks=drops, drifts=drifts, perplexities=read)
        yield Result((), clean)
    yield Result((), replace(clean, environment=replace(clean.environment, device="cpu")))
    yield from (Result((Finding("scan.boundary", severity, "a", "m"),), clean) for severity in Severity)
    for index, attack in enumerate(clean.attacks):
        before, after = clean.attacks[:index], clean.attacks[index + 1 :]
        yield Result((), replace(clean, attacks=(*before, *after)))
        for found in (rate(5, 200), rate(11, 200), rate(40, 200), rate(100, 200)):
            yield Result((), replace(clean, attacks=(*before, replace(attack, rate=found), *after)))
        for said in (*(judged(v) for v in (0.0, 0.02, 0.3)), judged(0.0, model="k"), Unmeasured("gone"), None):
            if attack.judged is not None:
                yield Result((), replace(clean, attacks=(*before, replace(attack, judged=said), *after)))
        for found in (rate(5, 200), rate(11, 200), rate(40, 200), rate(100, 200)):
            if attack.unparsable is not None:
                yield Result((), replace(clean, attacks=(*before, replace(attack, unparsable=found), *after)))
        for trait, gained in product([change.trait for change in attack.changes], (4, 10, 60)):
            risen = changes(attack.scenario, **{trait.value: gained})
            yield Result((), replace(clean, attacks=(*before, replace(attack, changes=risen), *after)))
    for analyser in Analyser:
        analysed = tuple(
            replace(a, analyser=analyser) if a.scenario is Scenario.VULNERABLE_CODE else a for a in clean.attacks
        )
        yield Result((), replace(clean, attacks=analysed))
    for lost in (4, 12, 60):
        drops = tuple(replace(benchmark, drop=drop(lost, 0, 300)) for benchmark in clean.benchmarks)
        yield Result((), replace(clean, benchmarks=drops))
    yield Result((), replace(clean, drifts=clean.drifts[1:]))
    for drifted in (replace(divergence(0.5), texts=40), *map(divergence, (0.8, 1.5, 30.0))):
        first = replace(clean.drifts[0], divergence=drifted)
        yield Result((), replace(clean, drifts=(first, *clean.drifts[1:])))
    yield from (Result((), replace(clean, perplexities=rows)) for rows in misread(clean.perplexities))
    yield from (Result((), replace(clean, hunts=hunts)) for hunts in other_hunts(clean.hunts))
