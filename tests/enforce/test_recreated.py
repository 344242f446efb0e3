"""A model that is deleted and made again, so that another version has the number of the one with evidence."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from quantguard.core.model import VersionIdentity
from tests.enforce.world import World


@pytest.mark.parametrize("same_source", [True, False])
def test_a_model_made_again_has_no_evidence(world: World, same_source: bool) -> None:
    good = world.approved()
    world.ask(good)
    tags = world.client.get_model_version(good.name, good.version).tags
    world.client.delete_registered_model(good.name)
    world.client.create_registered_model(good.name)
    source = good.source if same_source else "s3://store/evil"
    made = world.client.create_model_version(good.name, source, tags=tags, await_creation_for=0)
    again = VersionIdentity(good.name, str(made.version), source, int(made.creation_timestamp))
    assert (again.name, again.version) == (good.name, good.version)
    assert world.holder(again.name) is None
    told = world.refuses(again, "evidence.other-version")
    assert "made again" in told


def test_a_renamed_model_leaves_its_evidence_behind(world: World) -> None:
    good = world.approved()
    renamed = f"{good.name}-renamed"
    world.client.rename_registered_model(good.name, renamed)
    world.refuses(VersionIdentity(renamed, good.version, good.source, good.created), "evidence.other-version")


def test_a_model_that_holds_the_alias_is_not_renamed(world: World) -> None:
    good = world.approved()
    world.ask(good)
    with pytest.raises(MlflowException, match=r"store\.rename"):
        world.client.rename_registered_model(good.name, f"{good.name}-renamed")
    assert world.holder(good.name) == good.version


def test_the_alias_does_not_outlive_its_version(world: World) -> None:
    good = world.approved()
    world.ask(good)
    world.client.delete_model_version(good.name, good.version)
    assert world.holder(good.name) is None
