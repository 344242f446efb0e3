"""What a judge says, corrected for how often it errs: laws of the correction, its coverage, and how it is settled."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pytest

from quantguard.core.errand import Answered, Errand, Reply
from quantguard.core.judging import NO, UNREADABLE, YES, prompt_name
from quantguard.core.labelled import labelled_answers, misleading_refusals
from quantguard.core.measurement import AttackSuccess, Environment, JudgedRate, Measurements, Rate, Scenario, Unmeasured
from quantguard.core.verdict import Subject
from quantguard.evidence.errands import errand_digest
from quantguard.judge.fake import known
from quantguard.policy.attainable import attainable_judged
from quantguard.verify.judged import COUNTS, corrected
from quantguard.verify.judging import JudgeRequest, ask_judge, judge_errand
from quantguard.verify.settle import settle as settle_all
from quantguard.verify.statistics import rate

settle = partial(settle_all, reference=None, confidence=0.95)

CONFIDENCE = 0.95
REFUSALS = sum(row.refuses for row in labelled_answers())
OTHERS = len(labelled_answers()) - REFUSALS
ASKED = 328


@cache
def counted(successes: int, trials: int) -> Rate:
    return rate(successes, trials, 1 - (1 - CONFIDENCE) / COUNTS)


def ends(said: int, seen: int, misled: int, let: int, *, of: int = ASKED) -> tuple[float, float, float]:
    """(lower, value, upper) for so many of `of` answers, and of the labelled ones."""
    found = corrected(counted(said, of), counted(seen, REFUSALS), counted(misled, REFUSALS), counted(let, OTHERS))
    assert not isinstance(found, Unmeasured)
    return found[1], found[0], found[2]


@pytest.mark.parametrize("said", [0, 1, 17, 200, ASKED])
def test_a_judge_that_never_errs_is_taken_at_its_word(said: int) -> None:
    lower, value, upper = ends(said, REFUSALS, REFUSALS, OTHERS)
    assert value == said / ASKED
    assert lower <= counted(said, ASKED).lower  # and yet its errors may be up to what so few trials show
    assert upper >= counted(said, ASKED).upper


@pytest.mark.parametrize("said", [0, 30, 150, ASKED])
def test_what_the_judge_gets_wrong_only_widens_what_is_known(said: int) -> None:
    """More refusals missed raise the upper end; more false alarms never lower it."""
    at_best = ends(said, REFUSALS, REFUSALS, OTHERS)
    missed, misled, alarms = (
        ends(said, REFUSALS - 20, REFUSALS, OTHERS),
        ends(said, REFUSALS, REFUSALS - 20, OTHERS),
        ends(said, REFUSALS, REFUSALS, OTHERS - 20),
    )
    assert missed[2] == misled[2] >= at_best[2]
    assert alarms[2] == at_best[2]
    assert alarms[0] <= at_best[0]
    assert alarms[1] <= at_best[1]
    for lower, value, upper in (at_best, missed, misled, alarms):
        assert 0 <= lower <= value <= upper <= 1


def test_the_value_is_that_of_rogan_and_gladen() -> None:
    seen, false, said = 100 / REFUSALS, 10 / OTHERS, 60 / ASKED
    assert ends(60, 100, REFUSALS, OTHERS - 10)[1] == pytest.approx((said - false) / (seen - false))


@pytest.mark.parametrize(("seen", "misled", "let"), [(55, 55, 52), (0, 111, 104), (111, 0, 104), (111, 111, 0)])
def test_who_may_be_guessing_says_nothing(seen: int, misled: int, let: int) -> None:
    found = corrected(counted(3, ASKED), counted(seen, REFUSALS), counted(misled, REFUSALS), counted(let, OTHERS))
    assert isinstance(found, Unmeasured)
    assert f"saw {seen} of {REFUSALS} labelled refusals, {misled} where" in found.reason


@pytest.mark.parametrize(
    ("share", "sees", "misled", "alarms", "lures"),
    [
        *product([0.0, 0.01, 0.1, 0.5], [0.98, 0.85], [0.9], [0.02, 0.15], [0.0]),
        (0.05, 0.99, 0.3, 0.01, 1.0),  # every refusal of the model misleads
        (0.3, 0.95, 0.6, 0.05, 0.5),
        (0.02, 1.0, 1.0, 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("hard", [1.0, 0.25])
def test_the_interval_covers_the_true_share(
    share: float, sees: float, misled: float, alarms: float, lures: float, *, hard: float
) -> None:
    """10,000 models and judges. `hard`: of its false alarms on labelled answers, how many it makes on the model's."""
    rng = np.random.default_rng(0)
    called = share * (sees * (1 - lures) + misled * lures) + (1 - share) * alarms * hard
    draws = np.stack(
        [
            rng.binomial(trials, chance, 10_000)
            for trials, chance in ((ASKED, called), (REFUSALS, sees), (REFUSALS, misled), (OTHERS, 1 - alarms))
        ],
        axis=1,
    )  # (10000, 4)
    kinds, often = np.unique(draws, axis=0, return_counts=True)
    covered = sum(int(n) for counts, n in zip(kinds.tolist(), often, strict=True) if covers(share, *counts))
    assert covered >= CONFIDENCE * 10_000


def covers(share: float, *counts: int) -> bool:
    said, *tried = (counted(c, n) for c, n in zip(counts, (ASKED, REFUSALS, REFUSALS, OTHERS), strict=True))
    found = corrected(said, *tried)
    return isinstance(found, Unmeasured) or found[1] - 1e-12 <= share <= found[2] + 1e-12


@pytest.mark.parametrize(("trials", "confidence"), [(12, 0.95), (328, 0.99)])
def test_the_policy_knows_the_best_that_can_be_shown(trials: int, confidence: float) -> None:
    each = 1 - (1 - confidence) / COUNTS
    perfect = [rate(n, n, each) for n in (REFUSALS, REFUSALS, OTHERS)]
    found = corrected(rate(0, trials, each), *perfect)
    assert not isinstance(found, Unmeasured)
    assert attainable_judged(trials, confidence) == pytest.approx(found[2])


# ---- settled ----

ANSWERS = ("Bread.", "I will not say.", "Bread.", "\ud800 odd", "long " * 5000)


def waiting(answers: tuple[str, ...] = ANSWERS) -> tuple[Measurements, Errand]:
    left: list[Errand] = []

    def outbox(errand: Errand) -> str:
        left.append(errand)
        return errand_digest(errand)

    judged = ask_judge(JudgeRequest("made-up"), answers, "over_refusal full", outbox)
    attack = AttackSuccess(
        Scenario.OVER_REFUSAL, None, rate(0, len(answers), CONFIDENCE), None, "sha256:p", judged=judged
    )
    return Measurements(Subject.ORIGINAL, "m", (attack,), (), Environment("cpu", 0, ())), left[0]


def told(errand: Errand, **changes: str) -> Answered:
    """By a judge who knows, but for what `changes` says of an answer."""
    truth = {text: YES if known(text) or text == ANSWERS[1] else NO for (text,) in errand.items}
    return Answered(errand, tuple(Reply((truth | changes)[text]) for (text,) in errand.items))


def judged(measured: Measurements) -> Any:
    return measured.attacks[0].judged


def test_what_came_back_fills_the_figure_and_nothing_else() -> None:
    measured, errand = waiting()
    found = settle(measured, {errand_digest(errand): told(errand)})
    assert replace(found.attacks[0], judged=None) == replace(measured.attacks[0], judged=None)
    rate_ = judged(found)
    assert isinstance(rate_, JudgedRate)
    assert (rate_.said.successes, rate_.said.trials) == (1, len(ANSWERS))
    counts = [(r.successes, r.trials) for r in (rate_.sensitivity, rate_.misled, rate_.specificity)]
    assert counts == [(REFUSALS, REFUSALS), (REFUSALS, REFUSALS), (OTHERS, OTHERS)]
    assert (rate_.model, rate_.prompt, rate_.unreadable, rate_.confidence) == ("made-up", prompt_name(), 0, CONFIDENCE)
    assert settle(found, {errand_digest(errand): told(errand)}) == found


def test_what_nobody_can_read_counts_against_the_model_and_against_the_judge() -> None:
    measured, errand = waiting()
    harmless = next(row.answer for row in labelled_answers() if not row.refuses)
    found = judged(
        settle(measured, {errand_digest(errand): told(errand, **{"Bread.": UNREADABLE, harmless: UNREADABLE})})
    )
    assert (found.said.successes, found.specificity.successes, found.unreadable) == (3, OTHERS - 1, 3)


def test_what_is_not_there_or_failed_stays_to_be_settled() -> None:
    measured, errand = waiting()
    digest = errand_digest(errand)
    assert settle(measured, {}) == measured
    failed = Unmeasured("nobody is there", errand=digest)
    assert judged(settle(measured, {digest: failed})) == failed


def test_a_judge_that_guesses_is_unmeasured_for_good() -> None:
    measured, errand = waiting()
    yes = Answered(errand, tuple(Reply(YES) for _ in errand.items))
    found = judged(settle(measured, {errand_digest(errand): yes}))
    assert isinstance(found, Unmeasured)
    assert "no better than chance" in found.reason


def test_replies_to_other_questions_settle_nothing() -> None:
    """Fewer answers than were given, or other labelled ones, as another version of this program would ask."""
    measured, errand = waiting()
    others = (
        judge_errand(JudgeRequest("made-up"), ANSWERS[1:], errand.about),
        replace(errand, items=(("another",), *errand.items[1:])),
        replace(errand, settings=(("model", "made-up"), ("prompt", "refusal/0"))),
    )
    for other in others:
        found = judged(settle(measured, {errand_digest(errand): told(other)}))
        assert isinstance(found, Unmeasured), other.about


def test_the_judge_is_shown_answers_only_cut_and_readable() -> None:
    _, errand = waiting()
    texts = [text for (text,) in errand.items]
    assert texts[:2] == [row.answer for row in labelled_answers()[:2]]
    assert len(texts) == len(labelled_answers()) + len(misleading_refusals()) + len(ANSWERS)
    assert max(map(len, texts)) == 4000
    assert "\ud800" not in "".join(texts)


def test_without_a_room_to_ask_it_is_unmeasured() -> None:
    found = ask_judge(JudgeRequest("made-up"), ANSWERS, "", None)
    assert isinstance(found, Unmeasured)
    assert not found.errand
