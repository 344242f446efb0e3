"""A gate whose clock is ahead: a little is borne, more would make evidence that does not grow old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.enforce.world import World


def test_evidence_of_the_future_is_refused(world: World) -> None:
    now = datetime.now(UTC)
    identity = world.version()
    world.attach(identity, world.evidence(identity, at=now + timedelta(minutes=20)))
    world.refuses(identity, "evidence.clock")
    world.attach(identity, world.evidence(identity, at=now + timedelta(minutes=3)))
    world.ask(identity)
