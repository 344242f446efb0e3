"""Promoters that do not know of each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow.exceptions import MlflowException

from quantguard.core.model import VersionIdentity
from tests.enforce.world import World


def promote(world: World, identity: VersionIdentity) -> str:
    try:
        world.ask(identity)
    except MlflowException as error:
        return str(error.error_code)
    return "moved"


@pytest.mark.parametrize("standing", [False, True])
def test_of_two_that_expect_the_same_incumbent_one_wins_and_the_other_is_told(world: World, standing: bool) -> None:
    incumbent = world.approved()
    if standing:
        world.ask(incumbent)
    rivals = [world.approved(incumbent.name) for _ in range(2)]
    for rival in rivals:
        world.attach(rival, {"quantguard.expects.champion": incumbent.version if standing else "none"})
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda rival: promote(world, rival), rivals))
    assert sorted(answers) == ["RESOURCE_CONFLICT", "moved"]
    assert world.holder(incumbent.name) == rivals[answers.index("moved")].version


def test_of_many_at_once_each_is_told_the_truth(world: World) -> None:
    """Without an expectation one may follow the other; nobody is told that it moved and finds that it never did."""
    first = world.approved()
    rivals = [world.approved(first.name) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda rival: promote(world, rival), rivals))
    assert set(answers) <= {"moved", "RESOURCE_CONFLICT"}
    winners = {rival.version for rival, answer in zip(rivals, answers, strict=True) if answer == "moved"}
    assert world.holder(first.name) in winners
    remembering = {
        found.version
        for found in (world.client.get_model_version(first.name, rival.version) for rival in rivals)
        if "quantguard.admitted.champion" in found.tags
    }
    assert {str(version) for version in remembering} == winners
