"""Keys that are no longer in force, or speak of another place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.enforce.world import TODAY, World


@pytest.mark.parametrize("at", [TODAY, datetime(2020, 6, 1, tzinfo=UTC)], ids=["after", "dated back"])
def test_a_key_that_has_run_out_signs_nothing_of_any_date(world: World, at: datetime) -> None:
    """Whoever finds a retired key can write any date."""
    identity = world.version()
    world.attach(identity, world.evidence(identity, signer=world.settings.retired, at=at))
    world.refuses(identity, "evidence.key-expired")


def test_a_key_of_staging_does_not_speak_of_production(world: World) -> None:
    identity = world.version()
    world.attach(identity, world.evidence(identity, signer=world.settings.staging))
    world.refuses(identity, "evidence.other-environment")
