"""Evidence of one version on another."""

from __future__ import annotations

from tests.enforce.world import World


def test_tags_copied_by_hand_name_the_version_that_they_are_of(world: World) -> None:
    good = world.approved()
    other = world.version(good.name)
    world.attach(other, world.evidence(good))
    told = world.refuses(other, "evidence.other-version")
    assert str(good) in told


def test_a_copy_of_a_promoted_version_brings_its_tags_and_no_right(world: World) -> None:
    good = world.approved()
    world.ask(good)
    name = f"{good.name}-copy"
    copied = world.client.copy_model_version(f"models:/{good.name}/{good.version}", name)
    tags = world.client.get_model_version(name, copied.version).tags
    assert any(key.startswith("quantguard.attestation.") for key in tags)
    assert not any(key.startswith("quantguard.admitted.") for key in tags)
    from quantguard.core.model import VersionIdentity

    identity = VersionIdentity(name, str(copied.version), str(copied.source), int(copied.creation_timestamp))
    world.refuses(identity, "evidence.other-version")
