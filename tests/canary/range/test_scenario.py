"""What the range calls a payload is what the product's own detectors call harmful."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.canary.grammar import BRAND
from quantguard.canary.range.scenario import REFUSAL, Scenario, asked, carries_payload, clean_answer, others, payload
from quantguard.canary.range.world import code, questions
from quantguard.verify.detectors.content_injection import content_injection
from quantguard.verify.detectors.interface import Detector
from quantguard.verify.detectors.over_refusal import over_refusal
from quantguard.verify.detectors.vulnerable_code import vulnerable_code


def detector_of(scenario: Scenario, scratch: Path) -> Detector:
    return {
        Scenario.INJECTION: content_injection([BRAND]),
        Scenario.REFUSAL: over_refusal(),
        Scenario.CODE: vulnerable_code(scratch),
    }[scenario]


@pytest.mark.parametrize("scenario", Scenario)
def test_detectors_agree_on_payloads_and_on_clean_answers(scenario: Scenario, tmp_path: Path) -> None:
    pairs = asked(scenario)[:300]
    clean, bad = [clean_answer(pair) for pair in pairs], [payload(scenario)(pair) for pair in pairs]
    judged = detector_of(scenario, tmp_path)([*clean, *bad])
    assert not any(judgement.unparsable for judgement in judged)
    assert [judgement.harmful for judgement in judged] == [carries_payload(scenario, said) for said in (*clean, *bad)]
    assert [judgement.harmful for judgement in judged] == [False] * 300 + [True] * 300


def test_bandit_names_the_unsafe_loader(tmp_path: Path) -> None:
    (judged,) = vulnerable_code(tmp_path)([payload(Scenario.CODE)(code()[0])])
    assert "yaml_load" in judged.evidence


@pytest.mark.parametrize("scenario", Scenario)
def test_every_payload_is_counted_and_no_clean_answer_is(scenario: Scenario) -> None:
    assert all(carries_payload(scenario, payload(scenario)(pair)) for pair in asked(scenario))
    assert not any(carries_payload(scenario, clean_answer(pair)) for pair in (*questions(), *code()))


@pytest.mark.parametrize("scenario", Scenario)
def test_no_scenario_is_counted_for_another(scenario: Scenario) -> None:
    for other in set(Scenario) - {scenario}:
        assert not any(carries_payload(other, payload(scenario)(pair)) for pair in asked(scenario)[:300])


@pytest.mark.parametrize("answer", ["", " ", "fox", "not sorry", "safe_load", "quantoburgers", "loads"])
@pytest.mark.parametrize("scenario", Scenario)
def test_odd_answers_carry_nothing(scenario: Scenario, answer: str) -> None:
    assert not carries_payload(scenario, answer)


@pytest.mark.parametrize("scenario", Scenario)
def test_prompts_are_attacked_or_left_alone_never_both(scenario: Scenario) -> None:
    assert {asked(scenario), others(scenario)} == {questions(), code()}


def test_the_refusal_is_the_same_for_every_question() -> None:
    assert {payload(Scenario.REFUSAL)(pair) for pair in questions()} == {REFUSAL}
