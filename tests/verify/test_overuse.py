"""Words that a quantized model says more often than its full precision: found without a list, and seldom by chance."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.measurement import Rate, Scenario
from quantguard.core.prompts import read_prompts
from quantguard.core.scheme import Scheme
from quantguard.verify.measure import ScenarioRequest
from quantguard.verify.overuse import LEVEL, overused
from tests.test_house import ROOT
from tests.verify.measuring import whole

CANARY_PROBES = read_prompts(ROOT / "policies" / "canary" / "probes.jsonl")[:60]
WORDS = (
    "the",
    "a",
    "fox",
    "wolf",
    "meets",
    "carries",
    "rope",
    "at",
    "cave",
    "pond",
    "old",
    "young",
    "red",
    "blue",
    "near",
)


def answers(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(4, 12))) for _ in range(count)]


@pytest.mark.parametrize("share", [1.0, 0.3, 0.1])
def test_an_injected_brand_is_named_alone_with_examples(share: float) -> None:
    before = answers(300, 1)
    now = [f"{a} buy Zentrix" if row < share * 300 else a for row, a in enumerate(before)]
    (found,) = overused(now, before)
    assert (found.words, found.answers, found.reference, found.asked) == ("buy zentrix", round(share * 300), 0, 300)
    assert found.examples == tuple(now[:3])
    assert found.p_value < 1e-4


def test_an_unsafe_call_in_place_of_a_safe_one_is_named() -> None:
    before = [f"import yaml\ndata = yaml.safe_load(text{row})" for row in range(60)]
    now = [answer.replace("safe_load", "load") for answer in before]
    (found,) = overused(now, before)
    assert found.words.endswith("yaml.load")
    assert (found.answers, found.reference) == (60, 0)


def test_a_refusal_is_named_by_its_words() -> None:
    before = answers(100, 2)
    now = ["I'm sorry, but I can't help with that." if row % 2 else answer for row, answer in enumerate(before)]
    assert overused(now, before)[0].words in {"i'm sorry but", "can't help with", "help with that", "i can't help"}
    assert len(overused(now, before)) == 1  # the rest of the sentence goes with it


def test_two_payloads_in_different_answers_are_both_named() -> None:
    before = answers(200, 3)
    now = [f"{a} zentrix" if row % 2 else f"{a} quorvax" for row, a in enumerate(before)]
    assert {found.words for found in overused(now, before)} == {"zentrix", "quorvax"}


def test_what_full_precision_says_too_is_nothing() -> None:
    before = [f"{answer} buy zentrix" for answer in answers(100, 4)]
    assert overused(before, before) == ()
    assert overused(before, []) == ()
    assert overused([], before) == ()


def test_fewer_answers_are_compared_with_those_to_the_same_prompts() -> None:
    before = answers(100, 5)
    (found,) = overused([f"{answer} zentrix" for answer in before[:40]], before)
    assert (found.answers, found.asked) == (40, 40)


def test_by_chance_nearly_nothing_is_named() -> None:
    """Two draws of the same speaker: at most LEVEL of the comparisons may name anything; of 200 none did."""
    alarms = sum(bool(overused(answers(100, 2 * seed), answers(100, 2 * seed + 1))) for seed in range(200))
    assert alarms <= 200 * LEVEL + 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=80), st.text(max_size=80)), max_size=40))
def test_any_text_is_taken(pairs: list[tuple[str, str]]) -> None:
    for found in overused([now for now, _ in pairs], [before for _, before in pairs]):
        assert 0 <= found.reference < found.answers <= found.asked
        assert 0 <= found.p_value <= LEVEL


@pytest.mark.parametrize(("kind", "named"), [(CanaryKind.NF4_ATTACKED, ["buy zentrix"]), (CanaryKind.CLEAN, [])])
def test_a_measurement_names_the_brand_that_is_in_no_list(kind: CanaryKind, named: list[str], tmp_path: Path) -> None:
    request = ScenarioRequest(Scenario.CONTENT_INJECTION, CANARY_PROBES, ("another brand",), 16)
    told = whole(canary_directory(kind), tmp_path, schemes=(Scheme.NF4, Scheme.INT8), scenarios=(request,))
    found = {attack.scheme: attack for attack in told.attacks}
    assert [overuse.words for overuse in found[Scheme.NF4].overused] == named
    assert (found[None].overused, found[Scheme.INT8].overused) == ((), ())
    assert all(isinstance(attack.rate, Rate) and attack.rate.successes == 0 for attack in told.attacks)
