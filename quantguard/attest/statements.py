"""The two statements that the gate signs: what was measured, and what was decided from it.

`measurements` is our own predicate. The decision is a Verification Summary Attestation of SLSA, version 1
(https://slsa.dev/spec/v1.1/verification_summary), which other verifiers read too: PASSED or FAILED, by which policy,
from which attestation. What a VSA has no word for stands in its key `quantguard`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from quantguard import __version__
from quantguard.core.attestation import Binding, moment
from quantguard.core.errors import EvidenceError
from quantguard.core.finding import Finding
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Reason, Subject, Verdict
from quantguard.core.waiver import Waiver
from quantguard.evidence.records import from_plain, to_plain
from quantguard.evidence.statement import About, Statement, read_statement

MEASUREMENTS: Final = "urn:quantguard.measurements:1"
DECISION: Final = "https://slsa.dev/verification_summary/v1"
VERIFIER: Final = "urn:quantguard.gate:1"
LEVEL: Final = "QUANTGUARD_GATE_PASSED"  # a level of our own: the track of SLSA's are about builds
_REMEDY: Final = "gate the version again"


@dataclass(frozen=True, slots=True)
class Measured:
    """The predicate `measurements`."""

    binding: Binding
    subject: Subject
    measurements: Measurements | None
    findings: tuple[Finding, ...]
    inputs: tuple[tuple[str, str], ...]  # as `policy.evidence.asked`
    materials: tuple[tuple[str, str], ...]  # (file of the gate's evidence, sha256:HEX), sorted
    measured_at: str  # as `core.attestation.timestamp`
    tool: str = __version__  # of QuantGuard


@dataclass(frozen=True, slots=True)
class Decided:
    """What stands in a VSA's key `quantguard`."""

    binding: Binding
    subject: Subject
    verdict: Verdict
    reasons: tuple[Reason, ...]  # every rule that was applied
    waivers: tuple[Waiver, ...]  # that the gate was given
    policy_name: str
    policy_digest: str  # sha256:HEX
    measurements: str  # sha256:HEX of the envelope that it was decided from
    decided_at: str  # as `core.attestation.timestamp`
    files: tuple[tuple[str, str], ...] = ()  # (path in the bundle, sha256:HEX), sorted; all but the decision itself
    derived_from: str = ""  # digest of the original that it was hardened from; empty for an original
    tool: str = __version__  # of QuantGuard


def measured_payload(measured: Measured) -> bytes:
    """The statement about what was measured, as it is signed."""
    return Statement((_about(measured.binding),), MEASUREMENTS, to_plain(Measured, measured)).to_json()


def decided_payload(decided: Decided) -> bytes:
    """The statement about what was decided, as it is signed."""
    return Statement((_about(decided.binding),), DECISION, _summary(decided)).to_json()


def read_measured(payload: bytes) -> Measured:
    """The inverse of `measured_payload`.

    Raises:
        EvidenceError: it is no such statement, or contradicts itself.
    """
    statement = read_statement(payload, predicate_type=MEASUREMENTS)
    measured = from_plain(Measured, statement.predicate)
    if statement.about != (_about(measured.binding),):
        raise EvidenceError("the measurements are about another model than they say", remedy=_REMEDY)
    found = measured.measurements
    if found is not None and (found.model_digest, found.subject) != (measured.binding.model_digest, measured.subject):
        raise EvidenceError("the measurements are of other bytes than they say", remedy=_REMEDY)
    moment(measured.measured_at)
    return measured


def read_decided(payload: bytes) -> Decided:
    """The inverse of `decided_payload`.

    Raises:
        EvidenceError: it is no such statement, or its summary says something else than its details.
    """
    statement = read_statement(payload, predicate_type=DECISION)
    decided = from_plain(Decided, statement.predicate.get("quantguard"))
    # The details were read strictly, and may lack what only a newer version writes.
    expected = {**_summary(decided), "quantguard": statement.predicate["quantguard"]}
    if statement.about != (_about(decided.binding),) or statement.predicate != expected:
        raise EvidenceError("the summary of the decision contradicts its details", remedy=_REMEDY)
    moment(decided.decided_at)
    return decided


def _about(binding: Binding) -> About:
    return About(str(binding.identity), _hex(binding.model_digest))


def _summary(decided: Decided) -> dict[str, Any]:
    passed = decided.verdict is Verdict.PROMOTE
    return {
        "verifier": {"id": VERIFIER, "version": {"quantguard": decided.tool}},
        "timeVerified": decided.decided_at,
        "resourceUri": str(decided.binding.identity),
        "policy": {
            "uri": f"urn:quantguard.policy:{decided.policy_name}",
            "digest": {"sha256": _hex(decided.policy_digest)},
        },
        "inputAttestations": [
            {"uri": "measurements.dsse.json", "digest": {"sha256": _hex(decided.measurements)}},
        ],
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": [LEVEL] if passed else ["FAILED"],
        "quantguard": to_plain(Decided, decided),
    }


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
