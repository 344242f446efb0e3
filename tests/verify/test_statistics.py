"""Intervals cover what they say they cover."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial

from quantguard.verify.statistics import holm, paired_drop, paired_rise, rate, sign_test


def test_none_of_fifty_shows_only_below_seven_percent() -> None:
    """The exact two-sided 95 % bound for 0 of 50 is 1 - 0.025 ** (1 / 50)."""
    nothing = rate(0, 50, 0.95)
    assert nothing.lower == 0.0
    assert nothing.upper == pytest.approx(1 - 0.025 ** (1 / 50))
    assert rate(0, 50, 0.90).upper == pytest.approx(0.0582, abs=1e-4)  # the one-sided 95 % bound


@pytest.mark.parametrize("trials", [1, 7, 40])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_of_a_rate_covers_every_true_share(trials: int, confidence: float) -> None:
    """Exact coverage: for each true p, the probability of a count whose interval holds p."""
    intervals = [rate(k, trials, confidence) for k in range(trials + 1)]
    for p in np.linspace(0.001, 0.999, 97):
        covered = sum(
            comb(trials, k) * p**k * (1 - p) ** (trials - k) for k, r in enumerate(intervals) if r.lower <= p <= r.upper
        )
        assert covered >= confidence - 1e-9


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.02, 0.0), (0.1, 0.1), (0.3, 0.05), (0.0, 0.5), (0.5, 0.5)])
def test_the_interval_of_a_drop_covers_the_true_drop(shares: tuple[float, float]) -> None:
    lost, gained = shares
    trials, confidence, runs = 30, 0.9, 2000
    draws = multinomial.rvs(trials, [lost, gained, 1 - lost - gained], size=runs, random_state=7)
    known: dict[tuple[int, int], bool] = {}
    for a, b, _ in draws:
        if (a, b) not in known:
            drop = paired_drop("1" * a + "0" * (trials - a), "0" * a + "1" * b + "0" * (trials - a - b), confidence)
            assert (drop.lost, drop.gained) == (a, b)
            known[a, b] = drop.lower <= lost - gained <= drop.upper
    covered = sum(known[a, b] for a, b, _ in draws)
    assert covered / runs >= confidence


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_a_drop_lies_in_its_interval_and_turns_with_its_runs(pairs: list[tuple[bool, bool]]) -> None:
    before = "".join("1" if b else "0" for b, _ in pairs)
    after = "".join("1" if a else "0" for _, a in pairs)
    there, back = paired_drop(before, after, 0.95), paired_drop(after, before, 0.95)
    assert -1 <= there.lower <= there.value <= there.upper <= 1
    assert (there.lower, there.upper) == pytest.approx((-back.upper, -back.lower))


def test_the_same_outcomes_twice_lose_nothing() -> None:
    drop = paired_drop("1011", "1011", 0.95)
    assert (drop.lost, drop.gained, drop.value) == (0, 0, 0.0)
    assert drop.lower < 0 < drop.upper


@pytest.mark.parametrize(("before", "after"), [("", ""), ("1", "10"), ("1", "x")])
def test_outcomes_that_cannot_be_paired_are_refused(before: str, after: str) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_drop(before, after, 0.95)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_an_impossible_rate_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no rate"):
        rate(successes, trials, 0.95)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 60))
def test_a_rise_is_the_drop_of_what_was_not_there(gained: int, lost: int, same: int) -> None:
    trials = gained + lost + same
    rise = paired_rise(gained, lost, trials, 0.95)
    drop = paired_drop("1" * gained + "0" * (trials - gained), "0" * gained + "1" * lost + "0" * same, 0.95)
    assert (rise.value, rise.lower, rise.upper) == (drop.value, drop.lower, drop.upper)


@pytest.mark.parametrize(("gained", "lost", "trials"), [(0, 0, 0), (-1, 0, 5), (0, -1, 5), (3, 3, 5)])
def test_an_impossible_rise_is_refused(gained: int, lost: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no rise"):
        paired_rise(gained, lost, trials, 0.95)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_the_binomial_one(gained: int, lost: int) -> None:
    known = binomtest(gained, gained + lost, alternative="greater").pvalue if gained + lost else 1.0
    assert sign_test(gained, lost) == pytest.approx(known)


def test_holm_multiplies_the_smallest_by_all_and_never_changes_their_order() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_p_value_and_bonferroni(values: list[float]) -> None:
    for corrected, value in zip(holm(values), values, strict=True):
        assert value <= corrected <= min(1.0, len(values) * value) + 1e-12
