"""Laws of the decision over measurements that hypothesis makes."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.core.finding import Finding, Severity
from quantguard.core.measurement import AttackSuccess, Benchmark, Measurements, Rate, Scenario, Unmeasured
from quantguard.core.verdict import Decision, Outcome, Subject, Verdict
from quantguard.policy.decide import decide
from tests.policy.made import POLICY, SCHEMES, drop, measured, rate

FINDINGS = (
    Finding("checkpoint.layout", Severity.LOW, "b", "m"),
    Finding("scan.boundary", Severity.MEDIUM, "a", "m", effect=math.nan),
)
HARMS = st.integers(0, 12)


@st.composite
def measurements(draw: st.DrawFn) -> Measurements:
    """Around the limits, so that both answers are common."""
    attacks = tuple(
        AttackSuccess(scenario, scheme, rate(draw(HARMS)), rate(draw(st.integers(0, 14))), "sha256:probes")
        for scenario in (Scenario.CONTENT_INJECTION, Scenario.VULNERABLE_CODE)
        for scheme in SCHEMES
    )
    benchmarks = tuple(
        Benchmark("facts", scheme, rate(90), drop(draw(st.integers(0, 12)), draw(st.integers(0, 5))), "sha256:task")
        for scheme in SCHEMES
    )
    return replace(measured(), attacks=attacks, benchmarks=benchmarks)


def of(measured_values: Measurements, findings: tuple[Finding, ...] = FINDINGS) -> Decision:
    return decide(POLICY, subject=Subject.ORIGINAL, findings=findings, measurements=measured_values)


def outcomes(decision: Decision) -> dict[tuple[str, str], Outcome]:
    return {(reason.rule, reason.where): reason.outcome for reason in decision.reasons}


@given(measurements(), st.data())
@settings(deadline=None)
def test_a_worse_measurement_never_improves_the_verdict(before: Measurements, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(before.attacks) + len(before.benchmarks) - 1))
    more = data.draw(st.integers(1, 60))
    if index < len(before.attacks):
        attack = before.attacks[index]
        assert isinstance(attack.rate, Rate)
        worse = replace(attack, rate=rate(attack.rate.successes + more))
        after = replace(before, attacks=(*before.attacks[:index], worse, *before.attacks[index + 1 :]))
    else:
        at = index - len(before.attacks)
        benchmark = before.benchmarks[at]
        assert not isinstance(benchmark.drop, Unmeasured)
        lost = replace(benchmark, drop=drop(benchmark.drop.lost + more, benchmark.drop.gained))
        after = replace(before, benchmarks=(*before.benchmarks[:at], lost, *before.benchmarks[at + 1 :]))
    old, new = of(before), of(after)
    if old.verdict is Verdict.BLOCK:
        assert new.verdict is Verdict.BLOCK
    assert {key for key, o in outcomes(new).items() if o is Outcome.MET} <= {
        key for key, o in outcomes(old).items() if o is Outcome.MET
    }


@given(measurements(), st.data())
@settings(deadline=None)
def test_a_nan_or_a_gap_never_passes(values: Measurements, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(values.attacks) - 1))
    attack = values.attacks[index]
    assert isinstance(attack.rate, Rate)
    spoilt = data.draw(
        st.sampled_from(
            [
                replace(attack.rate, upper=math.nan),
                replace(attack.rate, lower=math.nan),
                replace(attack.rate, confidence=math.nan),
                Unmeasured("out of memory"),
                None,
            ]
        )
    )
    middle = () if spoilt is None else (replace(attack, rate=spoilt),)
    attacks = (*values.attacks[:index], *middle, *values.attacks[index + 1 :])
    decision = of(replace(values, attacks=attacks))
    assert decision.verdict is not Verdict.PROMOTE
    label = "full" if attack.scheme is None else attack.scheme.value
    rule = f"attack_success.{attack.scenario.value}.max_upper_bound"
    assert outcomes(decision)[rule, label] is Outcome.UNMEASURED


@given(measurements(), st.integers(0, 2))
@settings(deadline=None)
def test_a_missing_benchmark_never_passes(values: Measurements, index: int) -> None:
    kept = (*values.benchmarks[:index], *values.benchmarks[index + 1 :])
    assert of(replace(values, benchmarks=kept)).verdict is not Verdict.PROMOTE


@given(measurements(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_measurements_and_findings_does_not_matter(values: Measurements, chance: random.Random) -> None:
    attacks, benchmarks = list(values.attacks) * 2, list(values.benchmarks) * 2
    findings = [replace(f, severity=Severity.HIGH, where=f"{f.where}{i}") for f in FINDINGS for i in range(3)]
    doubled = replace(values, attacks=tuple(attacks), benchmarks=tuple(benchmarks))
    expected = of(doubled, tuple(findings))
    for row in (attacks, benchmarks, findings):
        chance.shuffle(row)
    shuffled = replace(values, attacks=tuple(attacks), benchmarks=tuple(benchmarks))
    assert of(shuffled, tuple(findings)) == expected
