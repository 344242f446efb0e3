"""Evidence that was good once, or of something else, and is used again."""

from __future__ import annotations

from quantguard.attest.tags import DECISION_TAG, MEASUREMENTS_TAG
from tests.attest.made import days, measurements
from tests.enforce.world import TODAY, World


def test_old_evidence_is_stale(world: World) -> None:
    identity = world.version()
    world.attach(identity, world.evidence(identity, at=TODAY - days(31)))
    told = world.refuses(identity, "evidence.stale")
    assert "31 days" in told
    world.attach(identity, world.evidence(identity, at=TODAY - days(29)))
    world.ask(identity)


def test_a_good_decision_over_bad_measurements_is_refused(world: World) -> None:
    """Two halves, each signed by the gate for this version, that do not belong together."""
    identity = world.version()
    good, bad = world.evidence(identity), world.evidence(identity, found=measurements(quantized=90))
    world.attach(identity, {MEASUREMENTS_TAG: bad[MEASUREMENTS_TAG], DECISION_TAG: good[DECISION_TAG]})
    world.refuses(identity, "evidence.forged")


def test_a_version_that_was_admitted_may_come_back_by_the_evidence_of_then(world: World) -> None:
    """Rolling back does not wait for a new measurement; it does not bring back what the policy refuses today."""
    old = world.version()
    world.attach(old, world.evidence(old, at=TODAY - days(29)))
    world.ask(old)
    new = world.approved(old.name)
    world.ask(new)
    world.ask(old)
    assert world.holder(old.name) == old.version
    world.ask(new)
    # Other evidence, old when it came, is not what it was admitted by.
    world.attach(old, world.evidence(old, at=TODAY - days(40)))
    world.refuses(old, "evidence.stale")
