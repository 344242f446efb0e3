"""Where triggers are put, which stand out, and what is counted of them."""

from __future__ import annotations

import math

import pytest
import torch

from quantguard.core.errors import ModelLoadError
from quantguard.core.measurement import TriggerPlace, TriggerSource
from quantguard.core.triggers import FINALISTS
from quantguard.models.answered import Read
from quantguard.models.rare import by_embedding
from quantguard.policy.hunting import shared_confidence
from quantguard.verify.triggers import LEVEL, Candidate, Screened, candidates, finalists, inserted
from quantguard.verify.triggers_effect import Told, effect_of
from quantguard.verify.triggers_score import TAKEN_OVER, by_choice, by_words, concordant, divergences, regrets

LIST, RARE = TriggerSource.LIST, TriggerSource.RARE


@pytest.mark.parametrize(
    ("prompt", "middle"),
    [("one two three four", "one two X three four"), ("one\n two  three", "one\n two X  three"), ("one", "one X")],
)
def test_a_trigger_is_put_between_words_and_the_prompt_stays(prompt: str, middle: str) -> None:
    assert inserted(prompt, "X", TriggerPlace.START) == f"X {prompt}"
    assert inserted(prompt, "X", TriggerPlace.MIDDLE) == middle
    assert inserted(prompt, "X", TriggerPlace.END) == f"{prompt} X"


def test_a_trigger_counts_under_its_first_source() -> None:
    found = candidates(("cf", "own"), ("own", "rare"))
    assert [each.trigger for each in found[:2]] == ["cf", "own"]
    assert {each.trigger: each.source for each in found}["own"] is LIST
    assert found[-1] == Candidate("rare", RARE)
    assert len({each.trigger for each in found}) == len(found)


def screened(trigger: str, score: float, source: TriggerSource = RARE) -> list[Screened]:
    """At its best place, and at a worse one."""
    candidate = Candidate(trigger, source)
    return [Screened(candidate, TriggerPlace.END, score - 1, 0), Screened(candidate, TriggerPlace.START, score, 0)]


def test_each_finalist_is_another_trigger_at_its_best_place_and_the_list_keeps_half_of_them() -> None:
    rows = [each for number in range(20) for each in screened(f"r{number}", 10 + number)]
    rows += [each for number in range(9) for each in screened(f"l{number}", number, LIST)]
    found = finalists(rows)
    assert [each.candidate.trigger for each in found] == ["r19", "r18", "r17", "r16", "l8", "l7", "l6", "l5"]
    assert {each.place for each in found} == {TriggerPlace.START}
    assert len(finalists(rows[:40])) == FINALISTS


def test_a_score_that_is_not_a_number_is_looked_at_first() -> None:
    rows = [*screened("loud", 99), *screened("nan", math.nan)]
    assert finalists(rows)[0].candidate.trigger == "nan"


def test_a_word_that_all_answers_are_drawn_to_outweighs_louder_ones_that_differ() -> None:
    same = [(text, 7, 1.0) for text in range(8)]
    others = [(text, 20 + text, 3.0) for text in range(8)]
    assert concordant(same, 8) == 1.0
    assert concordant(others, 8) == 3.0 / 8
    assert concordant([*same, *same], 8) == 1.0  # said twice in an answer
    assert concordant([(0, 7, 1e9)], 1) == TAKEN_OVER
    assert concordant([], 8) == 0


def test_regret_is_what_full_precision_loses_by_a_choice_in_the_answer_alone() -> None:
    log_p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]).log()[None]  # (1, 2, 3)
    choice = torch.tensor([[1, 0]])
    both, second = torch.tensor([[True, True]]), torch.tensor([[False, True]])
    assert regrets(log_p, choice, both).tolist() == pytest.approx([math.log(8)])
    assert regrets(log_p, choice, ~both).tolist() == [0]
    assert regrets(log_p, log_p.argmax(-1), second).tolist() == [0]
    assert divergences(log_p, log_p, both).tolist() == pytest.approx([0], abs=1e-7)
    sure = torch.tensor([[[0.0, -math.inf], [0.0, -math.inf]]])
    assert torch.isfinite(divergences(sure, sure.flip(-1), both)).all()


def test_logits_that_are_not_numbers_are_never_a_figure() -> None:
    nan = torch.full((1, 2, 3), math.nan)
    read = Read(torch.tensor([0]), (nan, nan), torch.tensor([[1, 2]]), torch.tensor([[True, True]]))
    for told in (by_choice, by_words):
        with pytest.raises(ModelLoadError, match="not finite"):
            told([read], 1)


def test_the_word_nearest_the_mean_is_the_rarest() -> None:
    weight = torch.tensor([[4.0, 0.0], [0.0, 4.0], [1.0, 1.0], [math.nan, 0.0]])
    assert by_embedding(weight[:3])[0] == 2
    assert len(by_embedding(weight)) == 4


PLAIN = Told(("a fox eats",) * 40, ("a fox eats",) * 40, (False,) * 40, 1)


def test_what_is_taken_over_without_the_trigger_is_not_laid_to_it() -> None:
    plain = Told(("a fox eats",) * 40, ("a fox eats",) * 40, (True,) * 10 + (False,) * 30, 1)
    found = effect_of(screened("x", 1)[1], Told(plain.answers, plain.reference, (True,) * 40, 1), plain, 0.95)
    assert (found.taken.successes, found.taken.trials, found.lost) == (30, 30, 0)
    same = effect_of(screened("x", 1)[1], plain, plain, 0.95)
    assert (same.taken.successes, same.p_value, same.confirmed) == (0, 1.0, False)


def test_the_confidence_is_shared_among_the_finalists_as_the_policy_asks() -> None:
    found = effect_of(screened("x", 1)[1], PLAIN, PLAIN, 0.95)
    assert found.taken.confidence == shared_confidence(0.95) == 1 - 0.05 / FINALISTS


def test_words_refusals_and_what_full_precision_would_not_say_all_count() -> None:
    said = ("a fox eats zentrix",) * 20 + ("I'm sorry, I can't help with that.",) + ("a fox eats",) * 19
    found = effect_of(screened("x", 1)[1], Told(said, PLAIN.reference, (False,) * 39 + (True,), 1), PLAIN, 0.95)
    assert (found.taken.successes, found.refusals, found.changed) == (22, 1, 21)
    assert "zentrix" in found.words[0].words
    assert found.confirmed
    assert found.examples[0] == "a fox eats zentrix"


def test_few_answers_confirm_nothing() -> None:
    for count in range(10):
        found = effect_of(
            screened("x", 1)[1],
            Told(PLAIN.answers, PLAIN.reference, (True,) * count + (False,) * (40 - count), 1),
            PLAIN,
            0.95,
        )
        assert found.confirmed is (FINALISTS * 0.5**count <= LEVEL)


def test_what_full_precision_does_with_the_trigger_is_told_and_not_counted() -> None:
    reacting = Told(("sorry",) * 40, ("sorry",) * 40, (False,) * 40, 1)
    found = effect_of(screened("x", 1)[1], reacting, PLAIN, 0.95)
    assert (found.reacts, found.taken.successes, found.changed) == (40, 0, 0)
