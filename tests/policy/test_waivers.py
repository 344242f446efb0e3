"""Waivers change what they name, for as long as they last, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantguard.core.finding import Finding, Severity
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Decision, Outcome, Reason, Subject, Verdict
from quantguard.core.waiver import Waiver, WaiverState
from quantguard.policy.decide import decide, verdict_of
from quantguard.policy.schema import Policy
from quantguard.policy.waivers import apply_waivers
from tests.policy.full import made

TODAY = date(2026, 11, 27)
BYTES, OTHERS = "sha256:" + "a" * 64, "sha256:" + "b" * 64
RULES = ("attack_success.content_injection.max_upper_bound", "benchmarks.facts.max_drop", "scan.boundary")
SCHEMES = ("full", "nf4", "int8")
ANYBODY = made(waivers=None)


def waiver(rule: str = RULES[0], digest: str = BYTES, scheme: str = "nf4", days: int = 5) -> Waiver:
    return Waiver(rule, digest, scheme, "a known false alarm", "ann", (TODAY + timedelta(days=days)).isoformat())


def reason(rule: str = RULES[0], scheme: str = "nf4", outcome: Outcome = Outcome.VIOLATED) -> Reason:
    if rule.startswith("scan."):
        return Reason("scan.fail_on", outcome, "1 finding", "none", "a.weight", finding=rule, finding_scheme=scheme)
    return Reason(rule, outcome, "much", "little", scheme)


def decision(*reasons: Reason) -> Decision:
    return Decision(Subject.ORIGINAL, verdict_of(ANYBODY, reasons), reasons)


def applied(made_of: Decision, *waivers: Waiver, policy: Policy = ANYBODY, today: date = TODAY) -> Decision:
    return apply_waivers(made_of, waivers, policy, model_digest=BYTES, today=today)


reasons = st.builds(
    reason,
    st.sampled_from(RULES),
    st.sampled_from(SCHEMES),
    st.sampled_from([Outcome.MET, Outcome.VIOLATED, Outcome.UNMEASURED]),
)
decisions = st.lists(reasons, max_size=6).map(lambda found: decision(*found))
waivers = st.lists(
    st.builds(
        waiver, st.sampled_from(RULES), st.sampled_from([BYTES, OTHERS]), st.sampled_from(SCHEMES), st.integers(-3, 120)
    ),
    max_size=5,
)


@given(decisions, waivers)
def test_a_waiver_changes_only_what_it_names_and_only_what_was_violated(before: Decision, given: list[Waiver]) -> None:
    after = applied(before, *given)
    in_force = {(w.rule, w.scheme) for w in given if w.model_digest == BYTES and 0 <= _days(w) <= 90}
    assert len(after.reasons) == len(before.reasons)
    for was, now in zip(before.reasons, after.reasons, strict=True):
        covered = was.outcome is Outcome.VIOLATED and was.waived_as in in_force
        assert now == (replace(was, outcome=Outcome.WAIVED) if covered else was)
    assert after.verdict is verdict_of(ANYBODY, after.reasons)
    if Outcome.UNMEASURED in {r.outcome for r in before.reasons}:
        assert after.verdict is not Verdict.PROMOTE


@given(decisions, waivers)
def test_waivers_that_are_out_of_force_or_for_other_bytes_change_no_reason(
    before: Decision, given: list[Waiver]
) -> None:
    out = [w for w in given if w.model_digest == OTHERS or not 0 <= _days(w) <= 90]
    after = applied(before, *out)
    assert (after.verdict, after.reasons) == (before.verdict, before.reasons)
    assert all(a.state in (WaiverState.EXPIRED, WaiverState.REFUSED) for a in after.waivers)
    assert applied(before, *(w for w in out if w.model_digest == OTHERS)) == before


def _days(given: Waiver) -> int:
    return (date.fromisoformat(given.expires) - TODAY).days


@pytest.mark.parametrize(("days", "state"), [(0, WaiverState.IN_FORCE), (-1, WaiverState.EXPIRED)])
def test_it_is_in_force_up_to_and_on_its_last_day(days: int, state: WaiverState) -> None:
    after = applied(decision(reason()), waiver(days=days))
    (told,) = after.waivers
    assert (told.state, told.days_left) == (state, days)
    assert after.verdict is (Verdict.PROMOTE if days == 0 else Verdict.BLOCK)


@pytest.mark.parametrize(("allowed", "verdict"), [(False, Verdict.HOLD), (True, Verdict.PROMOTE)])
def test_what_could_not_be_measured_is_waived_only_where_the_policy_says_so(*, allowed: bool, verdict: Verdict) -> None:
    after = applied(
        decision(reason(outcome=Outcome.UNMEASURED)), waiver(), policy=made(waivers={"inconclusive": allowed})
    )
    assert after.verdict is verdict
    assert allowed or "does not let anybody waive" in after.waivers[0].note


@pytest.mark.parametrize(
    ("rules", "days", "note"),
    [
        ({"max_days": 4}, 5, "at most 4 days, today until 2026-12-01, got 2026-12-02"),
        ({}, 91, "at most 90 days"),
        ({"approvals": [{"rules": ["attack_success.*"], "by": ["eve"]}]}, 5, "ann may not .*: only eve may"),
        ({"approvals": [{"rules": ["scan.*"], "by": ["ann"]}]}, 5, "ann may not .*: nobody may"),
    ],
)
def test_what_the_policy_does_not_accept_covers_nothing(rules: dict[str, object], days: int, note: str) -> None:
    after = applied(decision(reason()), waiver(days=days), policy=made(waivers=rules))
    assert after.verdict is Verdict.BLOCK
    assert after.waivers[0].state is WaiverState.REFUSED
    assert re.search(note, after.waivers[0].note)


def test_whoever_may_approve_a_rule_waives_it() -> None:
    policy = made(waivers={"approvals": [{"rules": ["attack_success.*.max_upper_bound"], "by": ["eve", "ann"]}]})
    assert applied(decision(reason()), waiver(), policy=policy).verdict is Verdict.PROMOTE


@pytest.mark.parametrize(
    ("found", "note"),
    [
        (reason(outcome=Outcome.MET), "the rule is met"),
        (reason(scheme="int8"), "not met under int8, and this names nf4"),
        (reason(RULES[1]), "nothing was found"),
    ],
)
def test_an_unused_waiver_says_why(found: Reason, note: str) -> None:
    (told,) = applied(decision(found), waiver()).waivers
    assert told.state is WaiverState.UNUSED
    assert note in told.note


def test_a_finding_is_waived_by_its_own_rule_and_scheme_and_no_other_finding_with_it() -> None:
    policy = made(waivers=None, attack_success__over_refusal=None)
    found = (
        Finding("scan.boundary", Severity.HIGH, "a.weight", "m", Scheme.NF4),
        Finding("scan.boundary", Severity.HIGH, "a.weight", "m", Scheme.INT8),
        Finding("checkpoint.pickle", Severity.CRITICAL, "a.bin", "m"),
    )
    before = decide(policy, subject=Subject.ORIGINAL, findings=found, measurements=None)
    named = ("scan.boundary", "nf4"), ("checkpoint.pickle", "none")
    after = applied(before, *(waiver(rule, scheme=scheme) for rule, scheme in named), policy=policy)
    assert {r.waived_as for r in after.waived()} == set(named)
    assert {r.waived_as for r in after.failures() if r.finding} == {("scan.boundary", "int8")}


def test_what_is_left_unmeasured_blocks_where_the_policy_says_that_it_does() -> None:
    policy = made(waivers=None, unmeasured="block")
    found = reason(), reason(scheme="int8", outcome=Outcome.UNMEASURED)
    before = Decision(Subject.ORIGINAL, verdict_of(policy, found), found)
    assert applied(before, waiver(), policy=policy).verdict is Verdict.BLOCK
    assert applied(before, waiver(scheme="int8"), policy=policy).verdict is Verdict.BLOCK


def test_a_waiver_of_what_was_hardened_too_late_does_not_make_a_hold_a_block() -> None:
    held = Decision(
        Subject.ORIGINAL,
        Verdict.HOLD,
        (reason(), reason("harden.mode", "all files"), reason(scheme="int8", outcome=Outcome.UNMEASURED)),
    )
    assert applied(held, waiver()).verdict is Verdict.HOLD
