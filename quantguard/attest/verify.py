"""Is a bundle what the gate signed, and does its verdict follow from what was measured? Without registry or network.

Every check has an answer; what could not be looked at is told as that, and never as good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Final

from quantguard.attest.admission import decide_again
from quantguard.attest.bundle import (
    DECISION,
    MEASUREMENTS,
    MODEL_SIGNATURE,
    POLICY,
    members,
    read_member,
    read_pair,
)
from quantguard.attest.model_signature import verify_model
from quantguard.attest.opened import Opened, open_evidence
from quantguard.checkpoint.digest import model_digest
from quantguard.core.attestation import moment
from quantguard.core.errors import EvidenceError, ForgedEvidenceError, QuantGuardError
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Verdict
from quantguard.evidence.dsse import read_envelope
from quantguard.evidence.records import digest_bytes, read_record
from quantguard.evidence.trusted import TrustedKeys
from quantguard.policy.evidence import asked_otherwise
from quantguard.policy.load import LoadedPolicy, parse_policy
from quantguard.policy.waivers import days_left

_SHOWN: Final = 3  # files named in a sentence


class State(Enum):
    OK = "OK"
    FAILED = "FAILED"
    UNKNOWN = "could not tell"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: State
    message: str  # one sentence; may hold names of files and models, which are untrusted text


@dataclass(frozen=True, slots=True)
class Verified:
    """What all checks said, and of what."""

    checks: tuple[Check, ...]
    opened: Opened | None  # None where no signature could be verified

    @property
    def state(self) -> State:
        """The worst of all checks."""
        states = {check.state for check in self.checks}
        return State.FAILED if State.FAILED in states else State.UNKNOWN if State.UNKNOWN in states else State.OK


@dataclass(frozen=True, slots=True)
class Asked:
    """What is verified, against what."""

    bundle: Path
    keys: TrustedKeys
    now: datetime  # UTC
    model: Path | None = None  # a directory that is claimed to hold the bytes
    policy: LoadedPolicy | None = None  # today's, that should be met as well


def verify_bundle(asked: Asked) -> Verified:
    """Every check of a bundle, in order. Where the signatures do not hold, the others are not made.

    Raises:
        EvidenceError: the bundle is not there.
    """
    if not asked.bundle.is_dir():
        raise EvidenceError("is no bundle", path=asked.bundle, remedy="name the directory that the gate wrote")
    try:
        pair = read_pair(asked.bundle)
        opened = open_evidence(pair, asked.keys)
        for name, data in ((MEASUREMENTS, pair.measurements), (DECISION, pair.decision)):
            # A byte that the signature does not cover may be no other either.
            if read_envelope(data).to_json() != data:
                raise ForgedEvidenceError(f"{name} is not as it was written", path=asked.bundle)
    except EvidenceError as error:
        return Verified((Check("signatures", State.FAILED, error.message),), None)
    signers = ", ".join(f"{key.name} ({key.public.key_id[:16]})" for key in opened.signers)
    checks = [Check("signatures", State.OK, f"both statements are signed by {signers}")]
    checks += [_made(name, check, asked, opened) for name, check in _CHECKS]
    checks += [_made("waivers", _waivers, asked, opened)] if opened.decided.waivers else []
    checks += [_made("bytes", _model, asked, opened)] if asked.model is not None else []
    checks += [_made("your policy", _policy_of_today, asked, opened)] if asked.policy is not None else []
    return Verified(tuple(checks), opened)


def _made(name: str, check: Callable[[Asked, Opened], tuple[State, str]], asked: Asked, opened: Opened) -> Check:
    try:
        return Check(name, *check(asked, opened))
    except ForgedEvidenceError as error:
        return Check(name, State.FAILED, error.message)
    except QuantGuardError as error:
        return Check(name, State.UNKNOWN, str(error))


def _key(asked: Asked, opened: Opened) -> tuple[State, str]:
    signed, place = moment(opened.decided.decided_at), opened.decided.binding.environment
    valid = [key for key in opened.signers if key.is_valid(signed) and key.may_speak_of(place)]
    if not valid:
        return State.FAILED, f"no signer was trusted for {place} on {opened.decided.decided_at}"
    if signed > asked.now:
        return State.FAILED, f"signed in the future, {opened.decided.decided_at}"
    today = "" if any(key.is_valid(asked.now) for key in valid) else "; it has run out since"
    return State.OK, f"{valid[0].name} was trusted for {place} when it signed, {opened.decided.decided_at}{today}"


def _files(asked: Asked, opened: Opened) -> tuple[State, str]:
    found, signed = members(asked.bundle), dict(opened.decided.files)
    differences = tuple(_differences(found, signed))
    if not differences:
        return State.OK, f"{len(signed)} files are those that were signed"
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return State.FAILED, "; ".join(differences[:_SHOWN]) + more


def _differences(found: dict[str, str], signed: dict[str, str]) -> Iterator[str]:
    for name in sorted(found.keys() | signed.keys()):
        if name not in signed:
            yield f"{name} was added"
        elif name not in found:
            yield f"{name} is missing"
        elif found[name] != signed[name]:
            yield f"{name} was changed" if found[name] else f"{name} is no ordinary file"


def _policy(asked: Asked, opened: Opened) -> tuple[State, str]:
    if digest_bytes(read_member(asked.bundle, POLICY)) != opened.decided.policy_digest:
        return State.FAILED, f"{POLICY} is not the policy that it was decided by"
    return State.OK, f"{opened.decided.policy_name} {opened.decided.policy_digest}"


def _measured(asked: Asked, opened: Opened) -> tuple[State, str]:
    """What lies in the bundle for readers is what was signed for programs."""
    name = f"measurements-{opened.measured.subject.value}"
    stored = read_record(asked.bundle / "evidence" / f"{name}.json", name, Measurements)
    if stored != opened.measured.measurements:
        return State.FAILED, f"evidence/{name}.json holds other measurements than were signed"
    moved = sorted(set(opened.measured.materials) - set(opened.decided.files))
    if moved:
        return State.FAILED, f"{moved[0][0]} is not what was there when it was measured"
    return State.OK, f"of {opened.measured.binding.model_digest}, {opened.measured.measured_at}"


def _verdict(asked: Asked, opened: Opened) -> tuple[State, str]:
    policy = parse_policy(asked.bundle / POLICY, read_member(asked.bundle, POLICY))
    decided = opened.decided
    again = decide_again(opened.attested, policy, moment(decided.decided_at))
    if again.verdict is not decided.verdict or again.reasons != decided.reasons:
        return State.FAILED, f"the measurements say {again.verdict.value}, the decision {decided.verdict.value}"
    failures = "".join(f"; {reason.sentence()}" for reason in again.failures()[:_SHOWN])
    return State.OK, f"{decided.verdict.value} follows from the measurements and the policy{failures}"


def _waivers(asked: Asked, opened: Opened) -> tuple[State, str]:
    """What the verdict was allowed to overlook, with the days that are left today."""
    today = asked.now.astimezone(UTC).date()
    told = (
        f"{waiver.rule} ({waiver.scheme}) by {waiver.approver} until {waiver.expires}, "
        + (f"{left} days left" if (left := days_left(waiver, today)) >= 0 else "expired")
        for waiver in opened.decided.waivers
    )
    return State.OK, "; ".join(told)


def _model(asked: Asked, opened: Opened) -> tuple[State, str]:
    if asked.model is None:
        return State.UNKNOWN, "no directory was named"
    found = model_digest(asked.model)
    if found != opened.decided.binding.model_digest:
        return State.FAILED, f"{asked.model} holds other bytes: {found}"
    if MODEL_SIGNATURE in dict(opened.decided.files):
        verify_model(asked.model, read_member(asked.bundle, MODEL_SIGNATURE), asked.keys)
    return State.OK, f"{asked.model} holds the bytes that were measured"


def _policy_of_today(asked: Asked, opened: Opened) -> tuple[State, str]:
    if asked.policy is None:
        return State.UNKNOWN, "no policy was named"
    name = asked.policy.policy.name
    if other := asked_otherwise(opened.attested.inputs, asked.policy):
        return State.UNKNOWN, f"{name} asks what was not asked: {', '.join(other)}"
    decision = decide_again(opened.attested, asked.policy.policy, asked.now)
    failures = "; ".join(reason.sentence() for reason in decision.failures()[:_SHOWN])
    match decision.verdict:
        case Verdict.PROMOTE:
            return State.OK, f"{name} is met"
        case Verdict.BLOCK:
            return State.FAILED, f"{name} is not met: {failures}"
        case Verdict.HOLD:
            return State.UNKNOWN, f"{name}: {failures}"


_CHECKS: Final = (
    ("key", _key),
    ("files", _files),
    ("policy", _policy),
    ("measurements", _measured),
    ("verdict", _verdict),
)
