"""Asking until it is settled: how often it is settled wrongly, and how much is asked."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta

from quantguard.core.measurement import Interval
from quantguard.policy import attainable
from quantguard.verify.sequential import (
    MIXTURE,
    always_valid,
    log_wealth,
    sequential_rate,
    sequential_rise,
    sequential_sign,
    settled,
)
from quantguard.verify.statistics import rate

STREAMS, PROBES = 10_000, 322


@cache
def ends(confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of the interval, (PROBES + 1, PROBES + 1) each: k successes (column) in n trials (row)."""
    n, k = np.meshgrid(np.arange(1, PROBES + 1), np.arange(PROBES + 1), indexing="ij")
    lower, upper = always_valid(np.minimum(k, n), n, confidence)
    nothing = np.zeros((1, PROBES + 1))
    return np.vstack([nothing, lower]), np.vstack([nothing + 1, upper])


def streams(share: float, limit: float, confidence: float, look: int = 1) -> tuple[float, float, float]:
    """Of STREAMS runs: the share that passes, the share that fails, and the mean share of the probes asked."""
    random = np.random.default_rng(11)
    counts = (random.random((STREAMS, PROBES)) < share).cumsum(axis=1)  # (streams, probes)
    trials = np.arange(1, PROBES + 1)
    lower, upper = (end[trials, counts] for end in ends(confidence))  # (streams, probes)
    passes, fails = upper <= limit, lower > limit
    over = (passes | fails) & (trials % look == 0)
    stopped = over.any(axis=1)
    when = np.where(stopped, over.argmax(axis=1), PROBES - 1)
    rows = np.arange(STREAMS)
    passed, failed = stopped & passes[rows, when], stopped & fails[rows, when]
    return float(passed.mean()), float(failed.mean()), float((when + 1).mean()) / PROBES


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("limit", [0.03, 0.05, 0.1, 0.25])
def test_it_is_settled_wrongly_no_more_often_than_the_confidence_says(limit: float, confidence: float) -> None:
    """Looking after every single answer, at true shares around the limit and on it."""
    alpha = 1 - confidence
    for share in (limit * 1.0001, limit * 1.1, limit * 1.5, limit * 2):
        passed, _, _ = streams(share, limit, confidence)
        assert passed <= alpha, share
    for share in (0.0, limit / 2, limit / 1.5, limit / 1.1, limit):
        _, failed, _ = streams(share, limit, confidence)
        assert failed <= alpha, share
    passed, failed, _ = streams(limit, limit, confidence)
    assert passed + failed <= alpha  # one martingale for both sides


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.3, 0.5, 0.9, 1.0])
def test_the_true_share_is_in_every_interval_of_a_run_at_once(share: float, confidence: float) -> None:
    random = np.random.default_rng(3)
    counts = (random.random((STREAMS, PROBES)) < share).cumsum(axis=1)
    lower, upper = (end[np.arange(1, PROBES + 1), counts] for end in ends(confidence))
    assert ((lower <= share) & (share <= upper)).all(axis=1).mean() >= confidence


def test_an_exact_interval_that_is_looked_at_after_each_answer_would_err_more_often_than_it_says() -> None:
    """Why another interval is needed at all."""
    random = np.random.default_rng(5)
    counts = (random.random((2000, PROBES)) < 0.05).cumsum(axis=1)
    trials = np.broadcast_to(np.arange(1, PROBES + 1), counts.shape)
    upper, lower = beta.ppf(0.975, counts + 1, trials - counts), beta.ppf(0.025, counts, trials - counts + 1)
    assert ((upper <= 0.05) | (lower > 0.05)).any(axis=1).mean() > 0.1


@pytest.mark.parametrize(
    ("share", "limit", "confidence", "passes"),
    [
        (0.0, 0.05, 0.95, True),
        (0.0, 0.1, 0.95, True),
        (0.01, 0.1, 0.95, True),
        (0.05, 0.25, 0.95, True),
        (0.0, 0.05, 0.99, True),
        (0.3, 0.05, 0.95, False),
        (0.9, 0.05, 0.95, False),
        (0.9, 0.03, 0.99, False),
        (0.3, 0.1, 0.95, False),
        (0.7, 0.25, 0.95, False),
    ],
)
def test_a_clear_case_asks_at_most_two_fifths(share: float, limit: float, confidence: float, *, passes: bool) -> None:
    passed, failed, asked = streams(share, limit, confidence, look=32)
    assert asked <= 0.4
    assert (passed if passes else failed) > 0.99


def test_where_nothing_harmful_is_said_a_limit_of_five_percent_is_settled_at_seventy_seven() -> None:
    least = {
        (limit, confidence): next(n for n in range(1, PROBES + 1) if ends(confidence)[1][n, 0] <= limit)
        for limit, confidence in ((0.05, 0.95), (0.03, 0.95), (0.1, 0.95), (0.03, 0.99))
    }
    assert least == {(0.05, 0.95): 77, (0.03, 0.95): 135, (0.1, 0.95): 36, (0.03, 0.99): 191}  # docs/probes.md


@given(trials=st.integers(1, 5000), confidence=st.floats(0.51, 0.999))
def test_the_policy_knows_the_least_bound_that_can_be_shown(trials: int, confidence: float) -> None:
    assert attainable.MIXTURE == MIXTURE
    shown = [float(always_valid(0, n, confidence)[1]) for n in (trials, trials + 1)]
    assert attainable.attainable_sequential(trials, confidence) == pytest.approx(shown[0], rel=1e-9)
    assert shown[1] < shown[0]  # so the last is the least


@given(st.integers(1, 400), st.data())
def test_the_interval_holds_its_rate_and_says_which_kind_it_is(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    found = sequential_rate(successes, trials, 0.95, offered=400)
    assert 0 <= found.lower <= found.value <= found.upper <= 1
    assert (found.interval, found.offered) == (Interval.SEQUENTIAL, 400)
    assert rate(successes, trials, 0.95).interval is Interval.EXACT
    assert settled(found, found.upper)
    assert found.upper == 1 or not settled(found, (found.value + found.upper) / 2)


def test_the_ends_are_where_the_wealth_reaches_one_over_alpha() -> None:
    found = sequential_rate(7, 90, 0.95, offered=90)
    assert log_wealth(7, 90, np.array([found.lower, found.upper])) == pytest.approx(np.log(20), abs=1e-9)


def test_the_wealth_is_a_fair_game() -> None:
    """One more answer does not change its mean, whatever came before."""
    share = 0.07
    for k, n in [(0, 0), (0, 30), (5, 30), (30, 30)]:
        now = np.exp(log_wealth(k, n, share))
        mean = share * np.exp(log_wealth(k + 1, n + 1, share)) + (1 - share) * np.exp(log_wealth(k, n + 1, share))
        assert mean == pytest.approx(now, rel=1e-9)


@pytest.mark.parametrize(("successes", "trials", "offered"), [(0, 0, 5), (-1, 5, 5), (6, 5, 9), (1, 6, 5)])
def test_an_impossible_rate_is_refused(successes: int, trials: int, offered: int) -> None:
    with pytest.raises(ValueError, match="no rate"):
        sequential_rate(successes, trials, 0.95, offered=offered)


def test_the_true_rise_is_in_every_interval_of_a_run_at_once() -> None:
    gained, lost, runs = 0.15, 0.05, 200
    draws = np.random.default_rng(5).choice(3, size=(runs, 200), p=[gained, lost, 1 - gained - lost])
    missed = 0
    for run in draws:
        counts = [(run == kind).cumsum() for kind in (0, 1)]
        at_looks = [sequential_rise(int(counts[0][n]), int(counts[1][n]), n + 1, 0.9) for n in range(15, 200, 16)]
        missed += any(not rise.lower <= gained - lost <= rise.upper for rise in at_looks)
    assert missed <= 0.1 * runs


def test_a_p_value_that_is_looked_at_after_each_pair_is_seldom_small_by_chance() -> None:
    draws = np.random.default_rng(6).random((1000, 100)) < 0.5
    small = 0
    for run in draws:
        gained = run.cumsum()
        small += any(sequential_sign(int(gained[n]), int(n + 1 - gained[n])) <= 0.05 for n in range(100))
    assert small <= 0.05 * 1000
    assert sequential_sign(0, 0) == sequential_sign(3, 3) == 1.0
    assert sequential_sign(300, 0) < 1e-50


@pytest.mark.parametrize(("gained", "lost", "trials"), [(0, 0, 0), (-1, 0, 5), (3, 3, 5)])
def test_an_impossible_rise_is_refused(gained: int, lost: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no rise"):
        sequential_rise(gained, lost, trials, 0.95)
