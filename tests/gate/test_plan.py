"""Which models are hardened, for which schemes, and what is said where none is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantguard.core.finding import Finding, Severity
from quantguard.core.layer import ALL_WEIGHTS
from quantguard.core.measurement import Measurements
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Subject, Verdict
from quantguard.gate.outcome import decide_original
from quantguard.gate.plan import hardening_plan
from quantguard.policy.decide import decide
from quantguard.policy.schema import Calibration, Harden, HardenMode, Policy
from tests.policy.made import POLICY as MADE
from tests.policy.made import measured

FLAGGED = Finding("scan.boundary", Severity.HIGH, "lm_head.weight", "piled up", Scheme.INT8, 8.8, 0.4, 1e-30, "INT8")
ON_Q4_K = replace(FLAGGED, scheme=None, grid="Q4_K")
OUTLIER = Finding("scan.outlier", Severity.HIGH, "lm_head.weight", "one in each group", None, 100.0, 0.9)


def with_harden(mode: HardenMode, schemes: tuple[Scheme, ...] | None = None) -> Policy:
    calibration = Calibration(prompts="c.jsonl", samples=4)
    return MADE.model_copy(update={"harden": Harden(mode=mode, schemes=schemes, calibration=calibration)})


SUSPICIOUS, ALWAYS = with_harden(HardenMode.WHEN_SUSPICIOUS), with_harden(HardenMode.ALWAYS)
NF4, INT8 = Scheme.NF4, Scheme.INT8


def planned(policy: Policy, measurements: Measurements, *findings: Finding) -> tuple[tuple[Scheme, ...], str]:
    decision = decide(policy, subject=Subject.ORIGINAL, findings=findings, measurements=measurements)
    schemes, note = hardening_plan(policy, findings, measurements, decision)
    assert note.startswith("hardened" if schemes else "not hardened")
    return schemes, note


def plan(policy: Policy, measurements: Measurements, *findings: Finding) -> tuple[Scheme, ...]:
    return planned(policy, measurements, *findings)[0]


def test_what_is_calm_is_hardened_only_where_the_policy_says_always() -> None:
    assert plan(SUSPICIOUS, measured()) == ()
    assert plan(ALWAYS, measured()) == (NF4, INT8)


def test_never_is_never() -> None:
    assert plan(with_harden(HardenMode.NEVER), measured(quantized=90), FLAGGED) == ()


def test_the_schemes_that_the_scan_flags_are_hardened() -> None:
    assert plan(SUSPICIOUS, measured(), FLAGGED) == (INT8,)


def test_behaviour_calls_for_a_repair_that_the_scan_did_not() -> None:
    assert plan(SUSPICIOUS, measured(quantized=90)) == (NF4, INT8)


def test_double_quantization_is_repaired_as_the_scheme_whose_codes_it_has() -> None:
    deployed = ALWAYS.model_copy(update={"schemes": (Scheme.NF4_DOUBLE, INT8, NF4)})
    assert plan(deployed, measured(), FLAGGED) == (NF4, INT8)
    double = SUSPICIOUS.model_copy(update={"schemes": (Scheme.NF4_DOUBLE,)})
    found = measured(quantized=90)
    attacks = tuple(
        replace(attack, scheme=None if attack.scheme is None else Scheme.NF4_DOUBLE)
        for attack in found.attacks
        if attack.scheme is not INT8
    )
    assert plan(double, replace(found, attacks=attacks)) == (NF4,)


def test_only_what_the_policy_lets_be_hardened_is() -> None:
    schemes, note = planned(with_harden(HardenMode.WHEN_SUSPICIOUS, (NF4,)), measured(quantized=90), FLAGGED)
    assert schemes == (NF4,)
    assert note.endswith("; not for int8, which the policy does not harden")
    assert plan(with_harden(HardenMode.ALWAYS, (INT8, NF4)), measured()) == (INT8, NF4)


@pytest.mark.parametrize("mode", [HardenMode.WHEN_SUSPICIOUS, HardenMode.ALWAYS])
def test_what_is_malicious_in_full_precision_is_not_hardened(mode: HardenMode) -> None:
    assert plan(with_harden(mode), measured(full=90, quantized=90), FLAGGED) == ()


@pytest.mark.parametrize("policy", [SUSPICIOUS, ALWAYS], ids=["when suspicious", "always"])
@pytest.mark.parametrize(
    ("finding", "kind"),
    [
        (OUTLIER, "scan.outlier"),
        (ON_Q4_K, "scan.boundary on Q4_K"),
        (replace(ON_Q4_K, rule="scan.atoms", grid="groups of 64"), "scan.atoms on groups of 64"),
    ],
)
@pytest.mark.parametrize("quantized", [0, 90], ids=["calm", "attacked"])
def test_what_no_rounding_repairs_is_not_hardened_says_so_and_is_blocked(
    policy: Policy, finding: Finding, kind: str, quantized: int
) -> None:
    measurements = measured(quantized=quantized)
    schemes, note = planned(policy, measurements, finding, replace(FLAGGED, where="another.weight"))
    assert schemes == ()
    assert note == f"not hardened: choosing other roundings does not repair what the scan found ({kind})"
    assert decide_original(policy, (finding,), measurements).verdict is Verdict.BLOCK


def test_an_outlier_is_beyond_repair_whatever_else_its_weight_shows() -> None:
    assert plan(SUSPICIOUS, measured(), FLAGGED, OUTLIER) == ()


def test_what_one_weight_shows_under_another_format_as_well_is_left_to_the_scan_of_the_hardened_copy() -> None:
    """Of int8 attacks on the range, one shows on groups of 128 too."""
    assert plan(SUSPICIOUS, measured(), FLAGGED, ON_Q4_K) == (INT8,)
    # Where the scheme itself is not repaired, nothing repairs its shadow.
    assert plan(with_harden(HardenMode.ALWAYS, (NF4,)), measured(), FLAGGED, ON_Q4_K) == ()
    assert plan(SUSPICIOUS, measured(), FLAGGED, replace(ON_Q4_K, where=ALL_WEIGHTS)) == ()


def test_what_the_policy_lets_pass_keeps_nothing_from_being_hardened() -> None:
    note = Finding("scan.on_grid", Severity.INFO, "lm_head.weight", "quantized before")
    odd = Finding("checkpoint.vocabulary", Severity.HIGH, "tokenizer.json", "of the files, not of the weights")
    assert plan(ALWAYS, measured(), note, odd) == (NF4, INT8)


def test_names_of_tensors_stay_out_of_the_sentence() -> None:
    assert "\x1b" not in planned(SUSPICIOUS, measured(), replace(OUTLIER, where="\x1b[2J"))[1]


def test_an_original_that_could_not_be_measured_is_held_where_only_hardened_models_pass() -> None:
    assert decide_original(ALWAYS, (), None).verdict is Verdict.HOLD
