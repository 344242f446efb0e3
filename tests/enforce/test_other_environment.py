"""Evidence that another registry's gate made, of a version with the same name and number."""

from __future__ import annotations

import pytest

from tests.enforce.world import World


@pytest.mark.parametrize("environment", ["staging", "Production", "default"])
def test_evidence_of_another_environment_is_none_here(world: World, environment: str) -> None:
    identity = world.version()
    world.attach(identity, world.evidence(identity, environment))
    told = world.refuses(identity, "evidence.other-environment")
    assert "--environment production" in told
