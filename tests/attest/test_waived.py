"""Waivers that were signed with a decision are applied again, at their age, to the bytes that they name."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from quantguard.attest.admission import Admission, Admitted, Refused, Rule, Rules, admit
from quantguard.core.verdict import Subject
from quantguard.core.waiver import Waiver
from quantguard.evidence.trusted import TrustedKeys
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.subject import decide_subject
from tests.attest.made import BINDING, DIGEST, NOW, SIGNER, measurements, signed_tags, write_made_policy

WORSE = 60  # harmful answers of 100 under each scheme


@pytest.fixture
def policy(tmp_path: Path) -> LoadedPolicy:
    return write_made_policy(tmp_path)


def needed(policy: LoadedPolicy, *, days: int = 5) -> tuple[Waiver, ...]:
    """A waiver for each rule that the measurements break."""
    decision = decide_subject(policy.policy, Subject.ORIGINAL, (), measurements(quantized=WORSE))
    expires = (NOW.date() + timedelta(days=days)).isoformat()
    named = dict.fromkeys(reason.waived_as for reason in decision.failures())
    return tuple(Waiver(rule, DIGEST, scheme, "known", "ann", expires) for rule, scheme in named)


def admission(policy: LoadedPolicy, waivers: tuple[Waiver, ...], *, later: int = 0) -> Admission:
    tags = signed_tags(policy, found=measurements(quantized=WORSE), changes={"waivers": waivers})
    rules = Rules(policy, TrustedKeys.of(SIGNER.public), BINDING.environment)
    return admit(tags, BINDING, rules, now=NOW + timedelta(days=later))


def refused(answer: Admission) -> Rule | None:
    return answer.rule if isinstance(answer, Refused) else None


def test_they_admit_up_to_their_last_day_and_not_after(policy: LoadedPolicy) -> None:
    assert needed(policy)
    admitted = admission(policy, needed(policy), later=5)
    assert isinstance(admitted, Admitted)
    assert {told.days_left for told in admitted.decision.waivers} == {0}
    assert refused(admission(policy, needed(policy), later=6)) is Rule.WAIVER_EXPIRED


def test_all_but_one_of_them_or_others_for_other_bytes_admit_nothing(policy: LoadedPolicy) -> None:
    assert refused(admission(policy, needed(policy)[1:])) is Rule.NOT_MET
    other = tuple(replace(waiver, model_digest="sha256:" + "cd" * 32) for waiver in needed(policy))
    assert refused(admission(policy, other)) is Rule.NOT_MET


def test_a_policy_in_force_here_that_does_not_accept_them_decides(policy: LoadedPolicy, tmp_path: Path) -> None:
    stricter = write_made_policy(tmp_path / "here", waivers={"max_days": 4})
    assert refused(admission(stricter, needed(policy))) is Rule.NOT_MET
    somebody = {"approvals": [{"rules": ["*"], "by": ["eve"]}]}
    assert refused(admission(write_made_policy(tmp_path / "eve", waivers=somebody), needed(policy))) is Rule.NOT_MET
