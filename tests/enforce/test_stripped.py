"""Evidence that is taken away, in whole or in part."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from quantguard.attest.tags import DECISION_TAG, MEASUREMENTS_TAG
from tests.enforce.world import World


@pytest.mark.parametrize("key", [MEASUREMENTS_TAG, DECISION_TAG])
def test_half_of_the_evidence_is_none(world: World, key: str) -> None:
    identity = world.approved()
    world.client.delete_model_version_tag(identity.name, identity.version, key)
    world.refuses(identity, "evidence.missing")


def test_evidence_is_not_taken_from_under_an_alias(world: World) -> None:
    identity = world.approved()
    world.ask(identity)
    with pytest.raises(MlflowException, match=r"store\.holder"):
        world.client.delete_model_version_tag(identity.name, identity.version, DECISION_TAG)
    world.client.delete_registered_model_alias(identity.name, "champion")
    world.client.delete_model_version_tag(identity.name, identity.version, DECISION_TAG)
    world.refuses(identity, "evidence.missing")


def test_what_the_plugin_remembers_is_not_written_by_others(world: World) -> None:
    identity = world.approved()
    world.ask(identity)
    memory = world.client.get_model_version(identity.name, identity.version).tags["quantguard.admitted.champion"]
    other = world.version(identity.name)
    with pytest.raises(MlflowException, match=r"store\.reserved"):
        world.attach(other, {"quantguard.admitted.champion": memory})
