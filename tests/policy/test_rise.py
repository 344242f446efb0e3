"""The limit on the rise of perplexity: what it promotes, what it blocks, and what it does not believe."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from quantguard.core.measurement import Measurements, Perplexity, Rise, TextLoss, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Decision, Outcome, Subject, Verdict
from quantguard.policy.compare_inputs import compare_inputs
from quantguard.policy.decide import decide, suspicious
from quantguard.policy.load import load_policy
from quantguard.policy.schema import PerplexityLimits
from tests.policy.made import POLICY, measured, perplexity
from tests.policy.written import POLICY as WRITTEN
from tests.policy.written import require_refused, write_policy

LIMITED = POLICY.model_copy(update={"perplexity": PerplexityLimits(prompts="c.jsonl", samples=64, max_rise=0.1)})
RULE = "perplexity.max_rise"
SECTION = "perplexity: {prompts: calibration.jsonl, samples: 40, max_rise: 0.1}\n"
FULL = perplexity(Scheme.NF4, 0.02)


def reading(nf4: Perplexity) -> Measurements:
    clean = measured(policy=LIMITED)
    return replace(clean, perplexities=tuple(nf4 if p.scheme is Scheme.NF4 else p for p in clean.perplexities))


def of(measurements: Measurements | None) -> Decision:
    return decide(LIMITED, subject=Subject.ORIGINAL, findings=(), measurements=measurements)


def test_a_model_that_reads_as_before_is_promoted_with_one_reason_a_scheme() -> None:
    decision = of(measured(policy=LIMITED))
    assert decision.verdict is Verdict.PROMOTE
    told = [(reason.where, reason.measured.partition(",")[0]) for reason in decision.reasons if reason.rule == RULE]
    assert [where for where, _ in told] == ["full", "nf4", "int8"]


def test_the_upper_end_is_compared_and_a_limit_met_exactly_is_met() -> None:
    assert of(reading(perplexity(Scheme.NF4, 0.05, upper=0.1))).verdict is Verdict.PROMOTE
    (reason,) = of(reading(perplexity(Scheme.NF4, 0.05, upper=0.1001))).failures()
    assert reason.sentence() == (
        "perplexity.max_rise (nf4): +5.0 % [4.0 %, 10.0 %], perplexity 20.09 (3 nats a token, 640 tokens of 64 texts); "
        "allowed: upper bound at most 10.0 %"
    )
    assert suspicious(LIMITED, (), reading(perplexity(Scheme.NF4, 0.2)))


def spoilt(**figures: float) -> Perplexity:
    assert isinstance(FULL.rise, Rise)
    return replace(FULL, rise=replace(FULL.rise, **figures))


@pytest.mark.parametrize(
    "found",
    [
        replace(FULL, loss=Unmeasured("out of memory"), rise=Unmeasured("out of memory")),
        replace(FULL, rise=Unmeasured("the reference read other texts")),
        spoilt(value=math.nan),
        spoilt(upper=math.nan),
        spoilt(lower=math.nan),
        spoilt(upper=math.inf),
        spoilt(upper=0.001),
        spoilt(lower=-1.5),
        spoilt(confidence=0.9),
        spoilt(confidence=math.nan),
        replace(FULL, loss=TextLoss((30.0,) * 63, (10,) * 63)),
        replace(FULL, loss=TextLoss((30.0,) * 64, (0,) * 64)),
        replace(FULL, loss=TextLoss((math.nan,) * 64, (10,) * 64)),
        replace(FULL, loss=TextLoss((30.0,) * 63, (10,) * 64)),
        replace(FULL, loss=TextLoss((), ())),
    ],
)
def test_what_was_not_measured_as_the_policy_asks_never_passes(found: Perplexity) -> None:
    decision = of(reading(found))
    assert decision.verdict is Verdict.HOLD
    assert [(r.rule, r.where, r.outcome) for r in decision.failures()] == [(RULE, "nf4", Outcome.UNMEASURED)]


def test_a_scheme_that_is_absent_holds_and_a_second_figure_cannot_hide_the_first() -> None:
    whole = measured(policy=LIMITED)
    assert of(replace(whole, perplexities=whole.perplexities[1:])).verdict is Verdict.HOLD
    assert of(None).verdict is Verdict.HOLD
    twice = replace(whole, perplexities=(*whole.perplexities, perplexity(Scheme.NF4, 0.5)))
    assert of(twice).verdict is Verdict.BLOCK


def test_the_prompts_that_it_names_are_inputs_of_the_policy(tmp_path: Path) -> None:
    loaded = load_policy(write_policy(tmp_path, WRITTEN + SECTION))
    assert "perplexity.prompts" in {file.key for file in loaded.inputs}
    built_in = load_policy(write_policy(tmp_path, WRITTEN + SECTION.replace("calibration.jsonl", "neutral")))
    assert loaded.inputs_digest != built_in.inputs_digest


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("samples: 40", "samples: 61", "perplexity.samples", "expected at most 60, the prompts in the file, got 61"),
        ("samples: 40", "samples: 31", "perplexity.samples", "32"),
        ("calibration.jsonl", "self", "perplexity.prompts", "the model's own texts are not supported here"),
        ("calibration.jsonl", "absent.jsonl", "perplexity.prompts", "absent.jsonl"),
        ("max_rise: 0.1", "max_rise: 0", "perplexity.max_rise", "0"),
        ("max_rise: 0.1", "max_rise: .nan", "perplexity.max_rise", "finite"),
        ("max_rise", "rise", "perplexity", "rise"),
    ],
)
def test_a_section_that_means_nothing_is_refused_by_its_key(
    tmp_path: Path, old: str, new: str, key: str, said: str
) -> None:
    require_refused(write_policy(tmp_path, WRITTEN + SECTION.replace(old, new)), key, said)


def test_other_texts_under_the_same_name_are_told_and_so_are_other_answers(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("before", "after")]
    for folder in folders:
        folder.mkdir()
        write_policy(folder, WRITTEN + SECTION)
    path = folders[1] / "calibration.jsonl"
    text = path.read_text(encoding="utf-8")
    for changed in (text.replace("question 0", "question zero"), text.replace('0"}', '0", "answer": "x"}')):
        path.write_text(changed, encoding="utf-8")
        changes = compare_inputs(*(load_policy(folder / "policy.yaml") for folder in folders))
        assert "perplexity.prompts" in [change.rule for change in changes]
