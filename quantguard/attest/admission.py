"""May this registration be used, here and today? The one question that publish, registry, check and consumers ask.

The gate's own verdict is not read: the policy in force here decides again from what was measured and signed. Everything
that could not be checked is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from quantguard.attest.opened import Opened, open_evidence
from quantguard.attest.tags import from_tags
from quantguard.core.attestation import DEFAULT_ENVIRONMENT, Attested, Binding, moment
from quantguard.core.errors import EvidenceError
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Decision, Verdict
from quantguard.core.waiver import WaiverState
from quantguard.evidence.trusted import TrustedKeys
from quantguard.policy.evidence import asked_otherwise
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.schema import Policy
from quantguard.policy.subject import decide_subject
from quantguard.policy.waivers import apply_waivers

MOST_SKEW: Final = timedelta(minutes=5)  # by which the gate's clock may be ahead of this one
_SHOWN_REASONS: Final = 5


class Rule(StrEnum):
    """Why evidence is refused."""

    MISSING = "evidence.missing"
    FORGED = "evidence.forged"
    OTHER_VERSION = "evidence.other-version"
    OTHER_BYTES = "evidence.other-bytes"
    OTHER_ENVIRONMENT = "evidence.other-environment"
    CLOCK = "evidence.clock"
    KEY_EXPIRED = "evidence.key-expired"
    STALE = "evidence.stale"
    OTHER_PROBES = "evidence.other-probes"
    NOT_MET = "policy.not-met"
    WAIVER_EXPIRED = "waiver.expired"


@dataclass(frozen=True, slots=True)
class Rules:
    """By what is decided here."""

    policy: LoadedPolicy
    keys: TrustedKeys
    environment: str  # the operator's word for this registry


@dataclass(frozen=True, slots=True)
class Admitted:
    attested: Attested
    decision: Decision  # made just now
    key: str  # name of a key that signed and is valid


@dataclass(frozen=True, slots=True)
class Refused:
    rule: Rule
    message: str  # one sentence: what is wrong; holds names of the model, which are untrusted text
    remedy: str  # what to run


Admission = Admitted | Refused


def admit(tags: Mapping[str, str], asked_for: Binding | VersionIdentity, rules: Rules, *, now: datetime) -> Admission:
    """Whether the evidence in a version's tags lets it be used, with the decision or with the first rule it breaks.

    With an identity alone, the bytes are not compared: whoever has them gives a `Binding`, whose environment is that of
    `rules`. `now` is in UTC. Nothing is raised for what tags hold.
    """
    identity = asked_for.identity if isinstance(asked_for, Binding) else asked_for
    gate = f"run {_gate(identity, rules)}"
    try:
        pair = from_tags(tags)
        if pair is None:
            return Refused(Rule.MISSING, f"{identity} has no signed evidence", gate)
        opened = open_evidence(pair, rules.keys)
    except EvidenceError as error:
        return Refused(Rule.FORGED, f"the evidence of {identity} does not count: {error.message}", error.remedy or gate)
    return admit_opened(opened, asked_for, rules, now=now)


def admit_opened(opened: Opened, asked_for: Binding | VersionIdentity, rules: Rules, *, now: datetime) -> Admission:
    """As `admit`, of evidence whose signatures were verified with `rules.keys`."""
    for check in _CHECKS:
        if (refused := check(opened, asked_for, rules, now)) is not None:
            return refused
    attested = opened.attested
    decision = decide_again(attested, rules.policy.policy, now)
    if decision.verdict is not Verdict.PROMOTE:
        return _expired_waiver(attested, rules, decision) or _not_met(attested, decision, rules)
    return Admitted(attested, decision, _valid(opened, rules, now)[0])


def decide_again(attested: Attested, policy: Policy, now: datetime) -> Decision:
    """What `policy` says of what was measured, with the waivers that were signed, at their age `now` (UTC)."""
    decision = decide_subject(policy, attested.subject, attested.findings, attested.measurements)
    digest = attested.binding.model_digest
    return apply_waivers(decision, attested.waivers, policy, model_digest=digest, today=now.astimezone(UTC).date())


def _gate(identity: VersionIdentity, rules: Rules) -> str:
    """The command whose evidence would be admitted here. The policy's folder is this machine's, and is not told."""
    place = "" if rules.environment == DEFAULT_ENVIRONMENT else f" --environment {rules.environment}"
    return f"quantguard gate {identity} --policy {rules.policy.path.name} --key KEY{place}"


def _version(opened: Opened, asked_for: Binding | VersionIdentity, rules: Rules, now: datetime) -> Refused | None:
    del now
    identity = asked_for.identity if isinstance(asked_for, Binding) else asked_for
    binding = opened.decided.binding
    if not binding.names(identity):
        message = f"the evidence of {identity} is about another registration: {binding.identity}"
        if str(binding.identity) == str(identity):
            message += ", of another source or creation time (made again since, or moved)"
        return Refused(Rule.OTHER_VERSION, message, f"run {_gate(identity, rules)}")
    if isinstance(asked_for, Binding) and asked_for.model_digest != binding.model_digest:
        message = f"{identity} holds other bytes than were measured: {asked_for.model_digest}"
        return Refused(Rule.OTHER_BYTES, message, "find out who changed its files; then gate it as a new version")
    return None


def _environment(opened: Opened, asked_for: Binding | VersionIdentity, rules: Rules, now: datetime) -> Refused | None:
    del asked_for, now
    binding, here = opened.decided.binding, rules.environment
    if binding.environment != here:
        message = f"the evidence of {binding.identity} is for the environment {binding.environment!r}, not {here!r}"
        return Refused(Rule.OTHER_ENVIRONMENT, message, f"run {_gate(binding.identity, rules)}")
    if not any(key.may_speak_of(here) for key in opened.signers):
        names = ", ".join(key.name for key in opened.signers)
        message = f"the evidence of {binding.identity} is signed by {names}, which is not trusted for {here!r}"
        return Refused(Rule.OTHER_ENVIRONMENT, message, f"gate it with a key that is trusted for {here}")
    return None


def _clock(opened: Opened, asked_for: Binding | VersionIdentity, rules: Rules, now: datetime) -> Refused | None:
    del asked_for, rules
    latest = max(moment(opened.decided.decided_at), moment(opened.measured.measured_at))
    if latest - now <= MOST_SKEW:
        return None
    message = f"the evidence of {opened.decided.binding.identity} was signed in the future, at {latest.isoformat()}"
    return Refused(Rule.CLOCK, message, "set the clocks of the gate and of this machine, then gate it again")


def _expired(opened: Opened, asked_for: Binding | VersionIdentity, rules: Rules, now: datetime) -> Refused | None:
    del asked_for
    if _valid(opened, rules, now):
        return None
    names = ", ".join(key.name for key in opened.signers)
    message = f"the key that signed the evidence of {opened.decided.binding.identity} is not in force: {names}"
    return Refused(Rule.KEY_EXPIRED, message, "gate it again with a key that is")


def _valid(opened: Opened, rules: Rules, now: datetime) -> list[str]:
    """Names of the signers that are trusted here, and were when they signed and are still.

    Both: without a time that somebody else attests, a key that has run out could sign with any date.
    """
    signed = moment(opened.decided.decided_at)
    # A clock that is slightly ahead may have signed just after now.
    still = (key for key in opened.signers if key.is_valid(min(signed, now)) and key.is_valid(now))
    return [key.name for key in still if key.may_speak_of(rules.environment)]


def _stale(opened: Opened, asked_for: Binding | VersionIdentity, rules: Rules, now: datetime) -> Refused | None:
    del asked_for
    limit = rules.policy.policy.evidence.max_age_days
    age = now - moment(opened.measured.measured_at)
    if age <= timedelta(days=limit):
        return None
    identity = opened.decided.binding.identity
    message = f"{identity} was measured {age.days} days ago; the policy takes evidence of at most {limit} days"
    return Refused(Rule.STALE, message, f"run {_gate(identity, rules)} in a new --work directory")


def _probes(opened: Opened, asked_for: Binding | VersionIdentity, rules: Rules, now: datetime) -> Refused | None:
    del asked_for, now
    other = asked_otherwise(opened.attested.inputs, rules.policy)
    if not other:
        return None
    identity = opened.decided.binding.identity
    message = f"{identity} was not asked what the policy {rules.policy.policy.name} asks: {', '.join(other)}"
    return Refused(Rule.OTHER_PROBES, message, f"run {_gate(identity, rules)}")


def _expired_waiver(attested: Attested, rules: Rules, decision: Decision) -> Refused | None:
    """Where only the age of waivers stands between the evidence and the policy, that is the reason."""
    then = decide_again(attested, rules.policy.policy, moment(attested.decided_at))
    expired = [applied.waiver for applied in decision.waivers if applied.state is WaiverState.EXPIRED]
    if then.verdict is not Verdict.PROMOTE or not expired:
        return None
    told = ", ".join(f"{waiver.rule} ({waiver.scheme}) on {waiver.expires}" for waiver in expired[:_SHOWN_REASONS])
    identity = attested.binding.identity
    message = f"waivers that {identity} needs have expired: {told}"
    return Refused(Rule.WAIVER_EXPIRED, message, "have them approved again, and gate it with the new waivers")


def _not_met(attested: Attested, decision: Decision, rules: Rules) -> Refused:
    identity, failures = attested.binding.identity, decision.failures()
    shown = "; ".join(reason.sentence() for reason in failures[:_SHOWN_REASONS])
    more = f"; and {len(failures) - _SHOWN_REASONS} more" if len(failures) > _SHOWN_REASONS else ""
    message = (
        f"{identity} does not meet the policy {rules.policy.policy.name} ({decision.verdict.value}): {shown}{more}"
    )
    return Refused(Rule.NOT_MET, message, "promote another version, or repair this one and register it again")


_Check = Callable[[Opened, Binding | VersionIdentity, Rules, datetime], Refused | None]
# In this order: first whether it is about this at all, then whether it counts today.
_CHECKS: Final[tuple[_Check, ...]] = (_version, _environment, _clock, _expired, _stale, _probes)
