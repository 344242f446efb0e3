"""Evidence that nobody trusted has signed, or that is not what was signed."""

from __future__ import annotations

import base64
import json
import zlib

import pytest

from quantguard.attest.tags import DECISION_TAG, MEASUREMENTS_TAG
from quantguard.core.errors import RegistryDeniedError
from quantguard.evidence.keys import Signer
from quantguard.registry.errors import translated
from tests.enforce.world import ENVIRONMENT, World


def test_a_version_with_evidence_is_admitted_and_one_without_is_told_what_to_run(world: World) -> None:
    identity = world.version()
    told = world.refuses(identity, "evidence.missing")
    assert f"quantguard gate {identity}" in told
    world.attach(identity, world.evidence(identity))
    world.ask(identity)
    assert world.holder(identity.name) == identity.version


def test_a_key_of_ones_own_is_no_key(world: World) -> None:
    identity = world.version()
    world.attach(identity, world.evidence(identity, signer=Signer.generate()))
    world.refuses(identity, "evidence.forged")


@pytest.mark.parametrize("key", [MEASUREMENTS_TAG, DECISION_TAG])
def test_what_is_edited_after_it_was_signed_is_forged(world: World, key: str) -> None:
    identity = world.version()
    tags = world.evidence(identity)
    envelope = json.loads(zlib.decompress(base64.b64decode(tags[key])))
    statement = base64.b64decode(envelope["payload"]).replace(b'"production"', b'"Production"')
    envelope["payload"] = base64.b64encode(statement).decode()
    tags[key] = base64.b64encode(zlib.compress(json.dumps(envelope).encode())).decode()
    world.attach(identity, tags)
    world.refuses(identity, "evidence.forged")


@pytest.mark.parametrize("junk", ["", "x", "AAAA", base64.b64encode(zlib.compress(b"{}")).decode()])
def test_junk_is_refused_and_the_server_goes_on(world: World, junk: str) -> None:
    identity = world.version()
    world.attach(identity, {**world.evidence(identity), DECISION_TAG: junk})
    world.refuses(identity, "evidence.forged")


def test_the_gates_own_tags_in_plain_words_are_no_evidence(world: World) -> None:
    identity = world.version()
    world.attach(identity, {"quantguard.verdict": "PROMOTE", "quantguard.promoted": "sha256:00"})
    world.refuses(identity, "evidence.missing")


def test_the_gate_passes_on_what_the_registry_says_to_do(world: World) -> None:
    identity = world.version()
    with pytest.raises(RegistryDeniedError) as refused, translated("promoting"):
        world.ask(identity)
    assert "(evidence.missing)" in refused.value.message
    assert refused.value.remedy.startswith(f"run quantguard gate {identity} --policy ")
    assert refused.value.remedy.endswith(f" --key KEY --environment {ENVIRONMENT}")
