"""Hostile directories, a few of every kind on every run; `python -m tests.fuzz.run` makes a hundred thousand."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.law import judge
from tests.fuzz.soak import warm_up
from tests.fuzz.targets import TARGETS, chance_of
from tests.fuzz.tree import Disk

EXAMPLES = 120  # of each target that hypothesis chooses
FIXED = 250  # of each target, the first of the long run's second seed
PATIENCE = 20.0  # seconds an input; the long run, which has its processes for itself, allows two


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    disk = Disk(tmp_path_factory.mktemp("fuzz") / "model")
    warm_up(disk)
    return disk


@pytest.mark.parametrize("name", TARGETS)
@given(chance=st.randoms(use_true_random=False))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_hypothesis_chooses_ends_in_a_result_or_a_typed_error(disk: Disk, name: str, chance: Random) -> None:
    """Hypothesis decides every choice of the mutators, and shrinks them."""
    target = TARGETS[name]
    disk.become(target.make(chance))
    assert judge(disk.root, target.read, seconds=PATIENCE).breach == ""


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_of_the_long_run_do_too(disk: Disk, name: str) -> None:
    target, said = TARGETS[name], set()
    for number in range(FIXED):
        disk.become(target.make(chance_of(1, name, number)))
        outcome = judge(disk.root, target.read, seconds=PATIENCE)
        assert outcome.breach == "", f"{name} {number}"
        said.add(outcome.said)
    assert len(said) > 1, "all of them end alike: nothing but the front door is fuzzed"
