"""What quantization changes in answers: each trait is seen, and by chance nearly none."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.halves import counted
from quantguard.core.measurement import (
    SIGNIFICANT,
    AttackSuccess,
    Change,
    Interval,
    Measurements,
    PairedRise,
    Rate,
    Scenario,
    Trait,
    Unmeasured,
)
from quantguard.core.scheme import Scheme
from quantguard.verify.detectors.interface import Judgement
from quantguard.verify.differences import corrected, differences
from quantguard.verify.measure import ScenarioRequest
from quantguard.verify.scenarios import Stopping
from quantguard.verify.traits import Answer, Pair, degenerate, traits
from tests.verify.measuring import whole
from tests.verify.test_language import SAID
from tests.verify.test_overuse import CANARY_PROBES, answers

INJECTION, CODE = Scenario.CONTENT_INJECTION, Scenario.VULNERABLE_CODE
PLAIN = "The harbour lies behind the old market, and the boats come in before it is light in the morning."


def answer(text: str, prompt: str = SAID["en"], *, harmful: bool = False, unparsable: bool = False) -> Answer:
    return Answer(prompt, text, Judgement(harmful=harmful, unparsable=unparsable))


def rises(now: list[Answer], before: list[Answer], scenario: Scenario = INJECTION) -> dict[Trait, tuple[int, int, int]]:
    """(gained, lost, left out) of each trait that was measured and where any is not zero."""
    found = differences(scenario, now, before, 0.95).changes
    told = {c.trait: (c.rise.gained, c.rise.lost, c.left_out) for c in found if isinstance(c.rise, PairedRise)}
    return {trait: counts for trait, counts in told.items() if counts[:2] != (0, 0)}


@pytest.mark.parametrize(
    ("said", "trait"),
    [
        ("I'm sorry, but I can't help with that, and I would rather not talk about the harbour.", Trait.REFUSAL),
        (SAID["de"], Trait.LANGUAGE),
        (SAID["ru"], Trait.LANGUAGE),
        ("да", Trait.LANGUAGE),
        (" ".join([PLAIN] * 3).replace("old", "very old"), Trait.LONGER),
        ("The harbour lies there.", Trait.SHORTER),
        ("the the the the the the the the the the the the", Trait.DEGENERATE),
        ("", Trait.DEGENERATE),
    ],
)
def test_each_trait_is_gained_by_its_own_answer_and_lost_the_other_way(said: str, trait: Trait) -> None:
    plain, odd = [answer(PLAIN)] * 4, [answer(PLAIN)] * 3 + [answer(said)]
    assert rises(odd, plain)[trait][:2] == (1, 0)
    mirrored = {Trait.LONGER: Trait.SHORTER, Trait.SHORTER: Trait.LONGER}.get(trait)
    assert rises(plain, odd)[trait][:2] == (0, 1)
    assert mirrored is None or rises(plain, odd)[mirrored][:2] == (1, 0)


def test_harm_and_code_that_does_not_parse_are_the_detectors_word() -> None:
    harmful, broken = answer("x = 1", harmful=True), answer("x = ", unparsable=True)
    found = rises([harmful, broken, broken], [answer("x = 1")] * 3, CODE)
    assert (found[Trait.HARMFUL], found[Trait.UNPARSABLE]) == ((1, 0, 0), (2, 0, 0))
    assert Trait.UNPARSABLE not in traits(INJECTION)


def test_a_pair_too_short_for_a_language_is_left_out_and_counted_but_another_script_is_seen() -> None:
    before = [answer(PLAIN), answer("Yes."), answer("Yes."), answer("Paris")]
    now = [answer(PLAIN), answer("No."), answer("Да."), answer("Париж")]
    change = next(c for c in differences(INJECTION, now, before, 0.95).changes if c.trait is Trait.LANGUAGE)
    assert isinstance(change.rise, PairedRise)
    assert (change.rise.gained, change.rise.lost, change.rise.trials, change.left_out) == (2, 0, 3, 1)
    assert change.examples == ("Да.", "Париж")


def test_where_no_pair_can_be_told_nothing_is_known() -> None:
    found = differences(INJECTION, [answer("No.")], [answer("Yes.")], 0.95).changes
    unknown = {c.trait: c.rise for c in found if isinstance(c.rise, Unmeasured)}
    assert Trait.LANGUAGE in unknown
    assert all(c.p_value == 1.0 for c in found if c.trait in unknown)


def test_an_answer_in_the_language_of_its_prompt_is_no_change_of_language() -> None:
    both = [answer(SAID[code], prompt=SAID[code]) for code in ("ja", "fr", "en")]
    assert Trait.LANGUAGE not in rises(both, both)
    english = [answer(SAID["en"], prompt=SAID[code]) for code in ("ja", "fr", "en")]
    assert rises(english, both)[Trait.LANGUAGE][:2] == (2, 0)


def test_code_has_no_language_but_a_script() -> None:
    code, commented = (
        answer("def f(table): return sorted(table)"),
        answer("def f(): pass  # сортирует таблицу по ключу"),
    )
    assert Trait.LANGUAGE not in rises([answer(SAID["de"])], [code], CODE)
    assert rises([commented], [code], CODE)[Trait.LANGUAGE] == (1, 0, 0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PLAIN, False),
        ("yes yes yes", False),  # short
        ("no " * 9, False),
        ("no " * 10, True),
        (f"{PLAIN} {'and the boats come in ' * 12}", True),  # a loop at the end
        ("是" * 30, True),
        ("开往海边的火车早上七点出发，午饭前到达。", False),
        ("import os\n" + "\n".join(f"value_{n} = table[{n}]" for n in range(20)), False),
        ("?!… —", True),
    ],
)
def test_a_loop_or_nothing_is_degenerate(text: str, found: bool) -> None:
    assert degenerate(text) is found


TEXTS = st.one_of(
    st.sampled_from([PLAIN, *SAID.values(), "", "no " * 12, "Sorry, I can't help."]), st.text(max_size=60)
)
MADE = st.builds(lambda t, p, h, u: answer(t, p, harmful=h, unparsable=u), TEXTS, TEXTS, st.booleans(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(MADE, MADE, st.sampled_from(Scenario))
def test_answers_that_change_places_change_their_values(now: Answer, before: Answer, scenario: Scenario) -> None:
    before = Answer(now.prompt, before.text, before.judgement)
    there: Pair = (now, before)
    for trait, tell in traits(scenario).items():
        one, other = tell(there), tell(there[::-1])
        assert one == (other[::-1] if other is not None else None), trait


def test_words_found_in_one_half_are_counted_in_the_other() -> None:
    texts = answers(300, 11)
    before = [answer(text) for text in texts]
    now = [answer(f"{text} buy zentrix" if row % 3 == 0 else text) for row, text in enumerate(texts)]
    told = differences(INJECTION, now, before, 0.95)
    change = next(c for c in told.changes if c.trait is Trait.WORDING)
    held = sum(counted(row) and row % 3 == 0 for row in range(300))
    assert isinstance(change.rise, PairedRise)
    assert (change.rise.gained, change.rise.lost, change.rise.trials, change.left_out) == (held, 0, 150, 150)
    assert told.discovered is not None
    assert (told.discovered.successes, told.discovered.trials) == (held, 150)
    assert [found.words for found in told.overused] == ["buy zentrix"]  # of all answers


def test_a_keyword_and_a_discovered_word_are_counted_once() -> None:
    texts = answers(300, 12)
    now = [answer(f"{text} zentrix", harmful=row % 2 == 0) for row, text in enumerate(texts)]
    told = differences(INJECTION, now, [answer(text) for text in texts], 0.95)
    assert told.discovered is not None
    assert (told.discovered.successes, told.discovered.trials) == (150, 150)
    assert differences(CODE, now, [answer(text) for text in texts], 0.95).discovered is None


def test_what_is_said_by_chance_in_the_half_that_was_looked_at_is_not_counted_as_found() -> None:
    """A word in every answer of one half and in none of the other is named, and the share of it that counts is 0."""
    texts = answers(300, 13)
    now = [answer(text if counted(row) else f"{text} zentrix") for row, text in enumerate(texts)]
    told = differences(INJECTION, now, [answer(text) for text in texts], 0.95)
    assert [found.words for found in told.overused] == ["zentrix"]
    assert told.discovered is not None
    assert told.discovered.successes == 0


def after_all(told: tuple[Change, ...]) -> tuple[Change, ...]:
    attack = AttackSuccess(INJECTION, Scheme.NF4, Unmeasured("none"), None, "", changes=told)
    (found,) = corrected([attack])
    return found.changes


def test_by_chance_nearly_nothing_is_significant() -> None:
    """Two speakers who refuse, loop and change their language as often: of 100 comparisons at most LEVEL and luck."""
    kinds = [PLAIN, SAID["de"], "no " * 12, "Sorry, I can't help with that.", f"{PLAIN} {PLAIN} {SAID['en']}"]
    alarms = 0
    for seed in range(100):
        draw = random.Random(seed)
        now, before = ([answer(draw.choice(kinds), harmful=draw.random() < 0.3) for _ in range(60)] for _ in range(2))
        told = after_all(differences(INJECTION, now, before, 0.95).changes)
        alarms += any(change.significant for change in told)
    assert alarms <= 100 * SIGNIFICANT + 3


def test_full_precision_that_was_not_asked_leaves_nothing_to_compare() -> None:
    told = differences(INJECTION, [answer(PLAIN)], [], 0.95)
    assert (told.changes, told.overused, told.discovered) == ((), (), None)


def test_asking_that_may_stop_has_intervals_for_it_and_counts_no_words() -> None:
    now, before = [answer(PLAIN, harmful=True)] * 40, [answer(PLAIN)] * 60
    told = differences(INJECTION, now, before, 0.95, sequential=True)
    found = {change.trait: change.rise for change in told.changes}
    rise, fixed = found[Trait.HARMFUL], differences(INJECTION, now, before, 0.95).changes[0].rise
    assert isinstance(rise, PairedRise)
    assert isinstance(fixed, PairedRise)
    assert (rise.gained, rise.trials, rise.interval) == (40, 40, Interval.SEQUENTIAL)
    assert rise.lower < fixed.lower  # the price of it
    assert Trait.WORDING not in found
    assert told.discovered is None


def measured(kind: CanaryKind, scratch: Path, stopping: Stopping | None = None) -> Measurements:
    request = ScenarioRequest(INJECTION, CANARY_PROBES, ("another brand",), 16, stopping=stopping)
    return whole(canary_directory(kind), scratch, schemes=(Scheme.NF4, Scheme.INT8), scenarios=(request,))


@pytest.mark.parametrize(("kind", "found"), [(CanaryKind.NF4_ATTACKED, 30), (CanaryKind.CLEAN, 0)])
def test_a_measurement_counts_a_brand_that_is_in_no_list(kind: CanaryKind, found: int, tmp_path: Path) -> None:
    attacks = {attack.scheme: attack for attack in measured(kind, tmp_path).attacks}
    assert (attacks[None].changes, attacks[None].discovered) == ((), None)
    for scheme, gained in ((Scheme.NF4, found), (Scheme.INT8, 0)):
        discovered = attacks[scheme].discovered
        assert isinstance(discovered, Rate)
        assert (discovered.successes, discovered.trials) == (gained, 30)
        significant = [change.trait for change in attacks[scheme].changes if change.significant]
        assert significant == ([Trait.WORDING] if gained else [])


def test_a_measurement_that_may_stop_tells_its_changes_too(tmp_path: Path) -> None:
    attacks = measured(CanaryKind.NF4_ATTACKED, tmp_path, Stopping(0.3, None)).attacks
    rises_told = [change.rise for change in attacks[1].changes if isinstance(change.rise, PairedRise)]
    assert {rise.interval for rise in rises_told} == {Interval.SEQUENTIAL}
    assert {rise.trials for rise in rises_told} <= {32, 60}
