"""The plugin's admission by itself: files that change under it, and what is remembered."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from quantguard.attest.enforcement import EvidenceAdmission
from quantguard.core.attestation import Binding
from quantguard.core.errors import QuantGuardError
from quantguard.core.model import VersionIdentity
from quantguard.registry.enforce.interface import (
    Allowed,
    Candidate,
    Denied,
    Memory,
    evidence_digest,
    identity_digest,
    remembers,
)
from quantguard.registry.enforce.settings import StoreSettings, store_settings
from tests.attest.made import DIGEST, days, signed_tags
from tests.enforce.world import TODAY, Settings, made_settings

IDENTITY = VersionIdentity("m", "1", "s3://store/1", 1_795_000_000_000)


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    return made_settings(tmp_path)


@pytest.fixture
def settings(made: Settings) -> StoreSettings:
    return store_settings(made.uri("sqlite:///x.db"), default_environment="default")


def candidate(made: Settings, *, age: float = 0, returning: bool = False) -> Candidate:
    binding = Binding(IDENTITY, DIGEST, "production")
    return Candidate(
        IDENTITY, signed_tags(made.policy, binding=binding, at=TODAY - days(age), signer=made.gate), returning
    )


def rule(answer: Allowed | Denied) -> str:
    return answer.rule if isinstance(answer, Denied) else "allowed"


def test_a_policy_that_changes_is_in_force_at_once(made: Settings, settings: StoreSettings) -> None:
    admission = EvidenceAdmission(settings)
    assert rule(admission.admit(candidate(made))) == "allowed"
    assert admission.protection().aliases == ("champion", "shadow")
    document = json.loads(settings.policy.read_text(encoding="utf-8"))
    document["registry"] = {"alias": "live", "stages": []}
    settings.policy.write_text(json.dumps(document), encoding="utf-8")
    assert (admission.protection().aliases, admission.protection().stages) == (("live",), ())


@pytest.mark.parametrize("broken", ["policy", "probes", "keys", "key"])
def test_what_cannot_be_read_any_more_admits_nobody_until_it_can(
    made: Settings, settings: StoreSettings, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    admission = EvidenceAdmission(settings)
    file = {
        "policy": settings.policy,
        "probes": made.policy.inputs[0].path,
        "keys": settings.keys,
        "key": settings.keys.with_name("gate.pub.pem"),
    }[broken]
    kept = file.read_bytes()
    file.write_bytes(b"not this")
    with caplog.at_level(logging.ERROR):
        assert rule(admission.admit(candidate(made))) == "store.settings"
        assert rule(admission.admit(candidate(made))) == "store.settings"
    assert len(caplog.records) == 1  # said once, not at every request
    assert admission.protection().alias("champion") == "champion"
    file.unlink()
    assert rule(admission.admit(candidate(made))) == "store.settings"
    with pytest.raises(QuantGuardError):
        EvidenceAdmission(settings)
    file.write_bytes(kept)
    assert rule(admission.admit(candidate(made))) == "allowed"


def test_a_key_that_is_taken_out_counts_no_more(made: Settings, settings: StoreSettings) -> None:
    admission = EvidenceAdmission(settings)
    ring = settings.keys.read_text(encoding="utf-8")
    settings.keys.write_text(ring.replace("- {name: gate, public: gate.pub.pem}\n", ""), encoding="utf-8")
    assert rule(admission.admit(candidate(made))) == "evidence.forged"


@pytest.mark.parametrize("rollback", [True, False])
def test_only_a_version_that_returns_may_be_old_and_only_where_the_policy_says_so(
    made: Settings, settings: StoreSettings, rollback: bool
) -> None:
    document = json.loads(settings.policy.read_text(encoding="utf-8"))
    document["registry"]["rollback"] = rollback
    settings.policy.write_text(json.dumps(document), encoding="utf-8")
    admission = EvidenceAdmission(settings)
    assert rule(admission.admit(candidate(made, age=400))) == "evidence.stale"
    back = candidate(made, age=400, returning=True)
    assert rule(admission.admit(back)) == ("allowed" if rollback else "evidence.stale")


def test_what_grows_old_is_looked_at_every_time(made: Settings, settings: StoreSettings) -> None:
    """Nothing that depends on the time is kept from one request to the next."""
    now = [TODAY]
    admission = EvidenceAdmission(settings, clock=lambda: now[0])
    fresh = candidate(made)
    assert rule(admission.admit(fresh)) == "allowed"
    now[0] += timedelta(days=31)
    assert rule(admission.admit(fresh)) == "evidence.stale"


def test_a_memory_is_of_one_version_and_one_evidence() -> None:
    tags = {"quantguard.attestation.decision": "a", "other": "b"}
    identity, evidence = identity_digest(IDENTITY), evidence_digest(tags)
    text = Memory(identity, evidence, "made sha256:00", "2026-11-27T20:00:00+00:00").text()
    assert remembers(text, IDENTITY, tags)
    assert remembers(text, IDENTITY, {**tags, "other": "c"})
    assert not remembers(text, IDENTITY, {**tags, "quantguard.attestation.decision": "b"})
    assert not remembers(text, VersionIdentity("m", "1", IDENTITY.source, IDENTITY.created + 1), tags)
    for other in (None, "", "[]", "null", "{}", text[:-1]):
        assert not remembers(other, IDENTITY, tags)
