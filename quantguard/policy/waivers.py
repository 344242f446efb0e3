"""Decision x waivers x today -> decision. Pure: no clock, no files.

A waiver covers a reason when it names its rule, its scheme and the digest of its bytes. The policy is asked again here,
whatever was checked when the file was read: evidence is decided again on other days and under other policies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from fnmatch import fnmatchcase

from quantguard.core.verdict import Decision, Outcome, Reason, Verdict
from quantguard.core.waiver import AppliedWaiver, Waiver, WaiverState
from quantguard.policy.decide import verdict_of
from quantguard.policy.schema import Policy
from quantguard.policy.waiver_rules import MAX_DAYS, WaiverRules

_LISTED = 5  # approvers named in a sentence


def apply_waivers(
    decision: Decision, waivers: Iterable[Waiver], policy: Policy, *, model_digest: str, today: date
) -> Decision:
    """`decision`, about the bytes of `model_digest`, with what waivers cover turned into WAIVED, and a new verdict.

    `decision` is as the policy alone makes it. A waiver for other bytes leaves no trace. No verdict becomes worse.
    """
    named = [waiver for waiver in waivers if waiver.model_digest == model_digest]
    applied = [_applied(waiver, decision, policy.waivers, today) for waiver in named]
    if not applied:
        return decision
    covering = {(a.waiver.rule, a.waiver.scheme) for a in applied if a.state is WaiverState.IN_FORCE}
    reasons = tuple(
        replace(reason, outcome=Outcome.WAIVED)
        if reason.waived_as in covering and _waivable(reason, policy.waivers)
        else reason
        for reason in decision.reasons
    )
    return replace(decision, verdict=_verdict(policy, decision, reasons), reasons=reasons, waivers=tuple(applied))


def waiver_problem(waiver: Waiver, rules: WaiverRules, today: date) -> str:
    """Why the policy does not accept a waiver, as a sentence about it; empty where it does."""
    expires = expiry(waiver)
    if expires is None:
        return f"{waiver.expires[:20]!r} is no date"
    last = today + timedelta(days=min(rules.max_days, MAX_DAYS))
    if expires > last:
        return f"a waiver lasts at most {rules.max_days} days, today until {last.isoformat()}, got {waiver.expires}"
    if not rules.approvals:
        return ""
    may = [name for a in rules.approvals if _names(a.rules, waiver.rule) for name in a.by]
    if waiver.approver in may:
        return ""
    known = list(dict.fromkeys(may))
    told = f"only {', '.join(known[:_LISTED])}{', ...' if len(known) > _LISTED else ''} may" if known else "nobody may"
    return f"{waiver.approver} may not approve waivers of {waiver.rule}: {told}"


def expiry(waiver: Waiver) -> date | None:
    """The last day on which it is in force, or None where `expires` is no date."""
    try:
        found = date.fromisoformat(waiver.expires)
    except ValueError:
        return None
    return found if found.isoformat() == waiver.expires else None


def days_left(waiver: Waiver, today: date) -> int:
    """Days after today on which it is in force; negative where it has expired, or where it never was."""
    expires = expiry(waiver)
    return -1 if expires is None else (expires - today).days


def _applied(waiver: Waiver, decision: Decision, rules: WaiverRules, today: date) -> AppliedWaiver:
    left = days_left(waiver, today)
    if problem := waiver_problem(waiver, rules, today):
        return AppliedWaiver(waiver, WaiverState.REFUSED, left, problem)
    if left < 0:
        return AppliedWaiver(waiver, WaiverState.EXPIRED, left, f"expired on {waiver.expires}")
    same = [reason for reason in decision.reasons if reason.waived_as == (waiver.rule, waiver.scheme)]
    if any(_waivable(reason, rules) for reason in same):
        return AppliedWaiver(waiver, WaiverState.IN_FORCE, left)
    return AppliedWaiver(waiver, WaiverState.UNUSED, left, _why_unused(waiver, decision, same))


def _waivable(reason: Reason, rules: WaiverRules) -> bool:
    return reason.outcome is Outcome.VIOLATED or (reason.outcome is Outcome.UNMEASURED and rules.inconclusive)


def _why_unused(waiver: Waiver, decision: Decision, same: list[Reason]) -> str:
    if any(reason.outcome is Outcome.UNMEASURED for reason in same):
        return "it could not be measured, which this policy does not let anybody waive"
    if same:
        return "the rule is met"
    elsewhere = sorted({r.waived_as[1] for r in decision.failures() if r.waived_as[0] == waiver.rule})
    if elsewhere:
        return f"the rule is not met under {', '.join(elsewhere)}, and this names {waiver.scheme}"
    return "nothing was found, or the policy has no such rule"


def _verdict(policy: Policy, decision: Decision, reasons: tuple[Reason, ...]) -> Verdict:
    """HOLD where something was not measured and the decision was that: less is against it now, and not more."""
    verdict = verdict_of(policy, reasons)
    return decision.verdict if verdict is Verdict.BLOCK else verdict


def _names(globs: Iterable[str], rule: str) -> bool:
    return any(fnmatchcase(rule, glob) for glob in globs)
