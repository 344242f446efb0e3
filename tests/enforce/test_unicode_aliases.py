"""Aliases that a reader takes for the protected one."""

from __future__ import annotations

import pytest

from tests.enforce.world import World

LOOKALIKES = ["Champion", "CHAMPION", "champion\n", "\uff43hampion", "ch\xe1mpion", "champion\u3164", "cha\u1160mpion"]


@pytest.mark.parametrize("alias", LOOKALIKES, ids=ascii)
def test_a_lookalike_is_refused_whatever_the_evidence(world: World, alias: str) -> None:
    identity = world.approved()
    told = world.refuses(identity, "store.lookalike", alias)
    assert "write it as champion" in told


def test_every_protected_alias_wants_evidence_and_others_want_none(world: World) -> None:
    identity = world.version()
    world.refuses(identity, "evidence.missing", "shadow")
    for free in ("blue", "champions", "champion-2", "\u751f\u4ea7"):
        world.ask(identity, free)
        assert world.holder(identity.name, free) == identity.version
