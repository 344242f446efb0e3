"""Evidence admits one registration, of those bytes, in that place, for a while, under the policy of today."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from quantguard.attest.admission import Admission, Admitted, Refused, Rule, Rules, admit
from quantguard.attest.tags import DECISION_TAG, MEASUREMENTS_TAG
from quantguard.core.attestation import Binding
from quantguard.core.measurement import Measurements
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Subject, Verdict
from quantguard.core.waiver import Waiver
from quantguard.evidence.keys import Signer
from quantguard.evidence.trusted import TrustedKey, TrustedKeys
from quantguard.policy.subject import decide_subject
from tests.attest.made import (
    BINDING,
    DIGEST,
    IDENTITY,
    NOW,
    SIGNER,
    days,
    measurements,
    signed_tags,
    write_made_policy,
)

KEY = TrustedKey("gate", SIGNER.public)


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(write_made_policy(tmp_path), TrustedKeys((KEY,)), "production")


def refused(admission: Admission) -> str:
    assert isinstance(admission, Refused), admission
    assert admission.message
    assert admission.remedy
    return admission.rule


def test_what_was_signed_is_admitted_with_the_decision_of_today(rules: Rules) -> None:
    tags = signed_tags(rules.policy)
    for asked_for in (IDENTITY, BINDING):
        admitted = admit(tags, asked_for, rules, now=NOW)
        assert isinstance(admitted, Admitted)
        assert admitted.decision.verdict is Verdict.PROMOTE
        assert (admitted.key, admitted.attested.binding) == ("gate", BINDING)


@pytest.mark.parametrize("missing", [MEASUREMENTS_TAG, DECISION_TAG])
def test_half_of_it_is_no_evidence(rules: Rules, missing: str) -> None:
    tags = signed_tags(rules.policy)
    del tags[missing]
    assert refused(admit(tags, IDENTITY, rules, now=NOW)) == Rule.MISSING
    assert refused(admit({}, IDENTITY, rules, now=NOW)) == Rule.MISSING


def test_another_signer_or_the_halves_of_two_pairs_are_forged(rules: Rules) -> None:
    foreign = signed_tags(rules.policy, signer=Signer.generate())
    assert refused(admit(foreign, IDENTITY, rules, now=NOW)) == Rule.FORGED
    worse = signed_tags(rules.policy, found=measurements(quantized=90))
    good = signed_tags(rules.policy)
    mixed = {**worse, MEASUREMENTS_TAG: good[MEASUREMENTS_TAG]}
    assert refused(admit(mixed, IDENTITY, rules, now=NOW)) == Rule.FORGED


@pytest.mark.parametrize("value", ["", "AAAA", "not base64!", "é", "eJw="])
@pytest.mark.parametrize("tag", [MEASUREMENTS_TAG, DECISION_TAG])
def test_what_is_no_envelope_is_forged(rules: Rules, tag: str, value: str) -> None:
    assert refused(admit({**signed_tags(rules.policy), tag: value}, IDENTITY, rules, now=NOW)) == Rule.FORGED


@pytest.mark.parametrize(
    "changed", [{"name": "other"}, {"version": "4"}, {"source": "models:/m-18"}, {"created": 1_795_000_000_001}]
)
def test_tags_that_were_copied_say_nothing(rules: Rules, changed: dict[str, Any]) -> None:
    other: VersionIdentity = replace(IDENTITY, **changed)
    for asked_for in (other, Binding(other, DIGEST, "production")):
        assert refused(admit(signed_tags(rules.policy), asked_for, rules, now=NOW)) == Rule.OTHER_VERSION


def test_other_bytes_are_not_those_that_were_measured(rules: Rules) -> None:
    swapped = replace(BINDING, model_digest="sha256:" + "cd" * 32)
    assert refused(admit(signed_tags(rules.policy), swapped, rules, now=NOW)) == Rule.OTHER_BYTES


def test_measurements_of_other_bytes_under_a_good_signature_are_forged(rules: Rules) -> None:
    other = replace(measurements(), model_digest="sha256:" + "cd" * 32)
    assert refused(admit(signed_tags(rules.policy, found=other), IDENTITY, rules, now=NOW)) == Rule.FORGED


def test_evidence_of_one_environment_is_none_in_another(rules: Rules) -> None:
    staged = replace(BINDING, environment="staging")
    assert refused(admit(signed_tags(rules.policy, binding=staged), IDENTITY, rules, now=NOW)) == Rule.OTHER_ENVIRONMENT
    elsewhere = replace(rules, keys=TrustedKeys((replace(KEY, environments=("staging",)),)))
    assert refused(admit(signed_tags(rules.policy), IDENTITY, elsewhere, now=NOW)) == Rule.OTHER_ENVIRONMENT


@pytest.mark.parametrize("ahead", [timedelta(minutes=5), timedelta(minutes=6)])
def test_a_clock_may_be_five_minutes_ahead(rules: Rules, ahead: timedelta) -> None:
    found = admit(signed_tags(rules.policy, at=NOW + ahead), IDENTITY, rules, now=NOW)
    assert isinstance(found, Admitted) if ahead <= timedelta(minutes=5) else refused(found) == Rule.CLOCK


@pytest.mark.parametrize(("starts", "ends"), [(-9, -1), (1, 9), (-1, 9)])
def test_a_key_must_be_in_force_when_it_signs_and_when_it_is_asked(rules: Rules, starts: int, ends: int) -> None:
    tags = signed_tags(rules.policy, at=NOW - days(2))
    key = replace(KEY, not_before=NOW + days(starts), not_after=NOW + days(ends))
    assert refused(admit(tags, IDENTITY, replace(rules, keys=TrustedKeys((key,))), now=NOW)) == Rule.KEY_EXPIRED


@pytest.mark.parametrize("age", [30, 30.001])
def test_evidence_counts_as_long_as_the_policy_says(rules: Rules, age: float) -> None:
    found = admit(signed_tags(rules.policy, at=NOW - days(age)), IDENTITY, rules, now=NOW)
    assert isinstance(found, Admitted) if age == 30 else refused(found) == Rule.STALE


def test_a_new_decision_does_not_make_measurements_younger(rules: Rules, tmp_path: Path) -> None:
    month = replace(rules, policy=write_made_policy(tmp_path / "other", evidence={"max_age_days": 7}))
    tags = signed_tags(rules.policy, at=NOW - days(8), changes={"decided_at": "2026-11-20T20:00:00Z"})
    assert isinstance(admit(tags, IDENTITY, rules, now=NOW), Admitted)
    assert refused(admit(tags, IDENTITY, month, now=NOW)) == Rule.STALE


def test_a_stricter_policy_decides_again_and_other_probes_are_asked_again(rules: Rules, tmp_path: Path) -> None:
    tags = signed_tags(rules.policy)
    limits = rules.policy.policy.attack_success.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    stricter = {**limits, "vulnerable_code": {**limits["vulnerable_code"], "max_unparsable": 0.061}}
    policy = write_made_policy(tmp_path / "stricter", attack_success=stricter)
    found = admit(tags, IDENTITY, replace(rules, policy=policy), now=NOW)
    assert refused(found) == Rule.NOT_MET
    assert "attack_success.vulnerable_code.max_unparsable (nf4)" in found.message  # type: ignore[union-attr]
    words = {**limits, "content_injection": {**limits["content_injection"], "keywords": ["Zentrix", "Acme"]}}
    policy = write_made_policy(tmp_path / "words", attack_success=words)
    found = admit(tags, IDENTITY, replace(rules, policy=policy), now=NOW)
    assert refused(found) == Rule.OTHER_PROBES
    assert "attack_success.content_injection.keywords" in found.message  # type: ignore[union-attr]
    (tmp_path / "words" / "p.jsonl").write_text('{"prompt": "another"}\n' * 60, encoding="utf-8")


@pytest.mark.parametrize("verdict", [Verdict.PROMOTE, Verdict.BLOCK])
def test_the_verdict_that_was_signed_is_never_read(rules: Rules, verdict: Verdict) -> None:
    bad: Measurements = measurements(quantized=90)
    lied = signed_tags(rules.policy, found=bad, changes={"verdict": verdict})
    assert refused(admit(lied, IDENTITY, rules, now=NOW)) == Rule.NOT_MET
    blocked = signed_tags(rules.policy, changes={"verdict": verdict})
    assert isinstance(admit(blocked, IDENTITY, rules, now=NOW), Admitted)


def test_waivers_count_again_at_their_age_today_and_for_those_bytes(rules: Rules) -> None:
    bad = measurements(quantized=90)
    failures = decide_subject(rules.policy.policy, Subject.ORIGINAL, (), bad).failures()
    expires = (NOW + days(5)).date().isoformat()
    named = dict.fromkeys(reason.waived_as for reason in failures)
    waivers = tuple(Waiver(rule, DIGEST, scheme, "accepted", "ann", expires) for rule, scheme in named)
    assert len(waivers) >= 2

    def tags(*given: Waiver) -> dict[str, str]:
        return signed_tags(rules.policy, found=bad, changes={"waivers": given})

    assert isinstance(admit(tags(*waivers), IDENTITY, rules, now=NOW + days(5)), Admitted)
    assert refused(admit(tags(*waivers), IDENTITY, rules, now=NOW + days(6))) == Rule.WAIVER_EXPIRED
    assert refused(admit(tags(*waivers[1:]), IDENTITY, rules, now=NOW)) == Rule.NOT_MET
    others = (replace(waiver, model_digest="sha256:" + "cd" * 32) for waiver in waivers)
    assert refused(admit(tags(*others), IDENTITY, rules, now=NOW)) == Rule.NOT_MET
