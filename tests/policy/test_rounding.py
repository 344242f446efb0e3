"""The limit on counterfactual rounding: what it promotes, what it blocks, and what it does not believe."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from quantguard.core.measurement import Divergence, Measurements, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Decision, Outcome, Subject, Verdict
from quantguard.policy.compare_inputs import compare_inputs
from quantguard.policy.decide import decide, repairable, suspicious
from quantguard.policy.load import load_policy
from quantguard.policy.schema import Counterfactual, HardenMode
from tests.policy.made import POLICY, divergence, measured
from tests.policy.written import POLICY as WRITTEN
from tests.policy.written import require_refused, write_policy

LIMITED = POLICY.model_copy(update={"counterfactual": Counterfactual(prompts="c.jsonl", samples=64, max_ratio=2.0)})
RULE = "counterfactual.max_ratio"
SECTION = "counterfactual: {prompts: calibration.jsonl, samples: 8, max_ratio: 2}\n"


def drifting(nf4: Divergence | Unmeasured) -> Measurements:
    clean = measured(policy=LIMITED)
    drifts = tuple(replace(d, divergence=nf4) if d.scheme is Scheme.NF4 else d for d in clean.drifts)
    return replace(clean, drifts=drifts)


def of(measurements: Measurements | None) -> Decision:
    return decide(LIMITED, subject=Subject.ORIGINAL, findings=(), measurements=measurements)


def test_the_gentlest_rounding_is_promoted_with_one_reason_a_scheme() -> None:
    decision = of(measured(policy=LIMITED))
    assert decision.verdict is Verdict.PROMOTE
    told = [(reason.where, reason.measured) for reason in decision.reasons if reason.rule == RULE]
    said = "0.50 times as far as at random [0.40, 0.62]"
    assert told == [("nf4", said), ("int8", said)]


def test_a_reason_says_in_words_what_was_prepared_and_where() -> None:
    (reason,) = of(drifting(divergence(31))).failures()
    assert reason.sentence() == (
        "counterfactual.max_ratio (nf4): rounding to nearest changes what the model says 31 times as much as rounding "
        "at random does [25, 39], and it should be the gentlest rounding; most of it hangs on model.layers.1 (93.0 %) "
        "and model.layers.0 (20.0 %); allowed: upper bound at most 2.0 times"
    )


def test_the_upper_bound_is_compared_and_a_limit_met_exactly_is_met() -> None:
    assert of(drifting(divergence(1.6))).verdict is Verdict.PROMOTE
    assert of(drifting(divergence(1.61))).verdict is Verdict.BLOCK


@pytest.mark.parametrize(
    "found",
    [
        Unmeasured("out of memory"),
        replace(divergence(0.5), upper=math.nan),
        replace(divergence(0.5), lower=math.nan),
        replace(divergence(0.5), ratio=math.nan),
        replace(divergence(0.5), upper=0.3),
        replace(divergence(0.5), confidence=math.nan),
        replace(divergence(0.5), confidence=0.9),
        replace(divergence(0.5), texts=63),
        replace(divergence(0.5), copies=0),
        replace(divergence(0.5), tokens=0),
    ],
)
def test_what_was_not_measured_as_the_policy_asks_never_passes(found: Divergence | Unmeasured) -> None:
    decision = of(drifting(found))
    assert decision.verdict is Verdict.HOLD
    assert [(r.rule, r.where, r.outcome) for r in decision.failures()] == [(RULE, "nf4", Outcome.UNMEASURED)]


def test_a_scheme_that_is_absent_holds_and_a_second_figure_cannot_hide_the_first() -> None:
    whole = measured(policy=LIMITED)
    assert of(replace(whole, drifts=whole.drifts[1:])).verdict is Verdict.HOLD
    assert of(None).verdict is Verdict.HOLD
    assert of(replace(whole, drifts=(*whole.drifts, *drifting(divergence(31)).drifts))).verdict is Verdict.BLOCK


def test_a_policy_without_the_section_asks_for_nothing() -> None:
    decision = decide(POLICY, subject=Subject.ORIGINAL, findings=(), measurements=measured())
    assert decision.verdict is Verdict.PROMOTE
    assert RULE not in {reason.rule for reason in decision.reasons}


def test_a_prepared_rounding_is_suspicious_and_worth_a_repair() -> None:
    assert not suspicious(LIMITED, (), measured(policy=LIMITED))
    assert not suspicious(LIMITED, (), drifting(Unmeasured("out of memory")))
    assert suspicious(LIMITED, (), drifting(divergence(31)))
    assert repairable(LIMITED, drifting(divergence(31)))


def test_a_repair_of_another_scheme_does_not_excuse_it() -> None:
    always = LIMITED.model_copy(update={"harden": LIMITED.harden.model_copy(update={"mode": HardenMode.ALWAYS})})
    repaired = replace(drifting(divergence(31)), subject=Subject.HARDENED)
    decision = decide(always, subject=Subject.HARDENED, findings=(), measurements=repaired)
    assert [reason.rule for reason in decision.failures()] == [RULE]


def test_the_prompts_that_it_names_are_inputs_of_the_policy(tmp_path: Path) -> None:
    loaded = load_policy(write_policy(tmp_path, WRITTEN + SECTION))
    assert "counterfactual.prompts" in {file.key for file in loaded.inputs}
    built_in = load_policy(write_policy(tmp_path, WRITTEN + SECTION.replace("calibration.jsonl", "neutral")))
    assert loaded.inputs_digest != built_in.inputs_digest


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("samples: 8", "samples: 61", "counterfactual.samples", "expected at most 60, the prompts in the file, got 61"),
        ("calibration.jsonl", "self", "counterfactual.prompts", "the model's own texts are not supported here"),
        ("calibration.jsonl", "absent.jsonl", "counterfactual.prompts", "absent.jsonl"),
        ("max_ratio: 2", "max_ratio: 0", "counterfactual.max_ratio", "0"),
        ("max_ratio: 2", "max_ratio: .inf", "counterfactual.max_ratio", "finite"),
        ("max_ratio", "ratio", "counterfactual", "ratio"),
    ],
)
def test_a_section_that_means_nothing_is_refused_by_its_key(
    tmp_path: Path, old: str, new: str, key: str, said: str
) -> None:
    require_refused(write_policy(tmp_path, WRITTEN + SECTION.replace(old, new)), key, said)


def test_other_prompts_under_the_same_name_are_told(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("before", "after")]
    for folder in folders:
        folder.mkdir()
        write_policy(folder, WRITTEN + SECTION)
    rows = (folders[1] / "calibration.jsonl").read_text(encoding="utf-8")
    (folders[1] / "calibration.jsonl").write_text(rows.replace("question 0", "question zero"), encoding="utf-8")
    changes = compare_inputs(*(load_policy(folder / "policy.yaml") for folder in folders))
    assert [change.rule for change in changes] == ["harden.calibration.prompts", "counterfactual.prompts"]
