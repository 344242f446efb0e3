"""Two envelopes, verified and read: everything about evidence that depends on no clock, policy or registry.

So it may be kept by whoever asks often; what depends on the time of day is `attest.admission`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quantguard.attest.statements import Decided, Measured, read_decided, read_measured
from quantguard.attest.tags import SignedPair
from quantguard.core.attestation import Attested
from quantguard.core.errors import ForgedEvidenceError
from quantguard.evidence.dsse import read_envelope, verify
from quantguard.evidence.records import digest_bytes
from quantguard.evidence.statement import PAYLOAD_TYPE
from quantguard.evidence.trusted import TrustedKey, TrustedKeys

_REMEDY: Final = "gate the version again"


@dataclass(frozen=True, slots=True)
class Opened:
    measured: Measured
    decided: Decided
    signers: tuple[TrustedKey, ...]  # who signed both, at least one

    @property
    def attested(self) -> Attested:
        """Both statements as one."""
        return attested(self.measured, self.decided)


def attested(measured: Measured, decided: Decided) -> Attested:
    """What two statements about the same bytes say together."""
    return Attested(
        binding=decided.binding,
        subject=decided.subject,
        measurements=measured.measurements,
        findings=measured.findings,
        inputs=measured.inputs,
        policy_digest=decided.policy_digest,
        policy_name=decided.policy_name,
        measured_at=measured.measured_at,
        decided_at=decided.decided_at,
        verdict=decided.verdict,
        waivers=decided.waivers,
    )


def open_evidence(pair: SignedPair, keys: TrustedKeys) -> Opened:
    """Verify both signatures and that the statements belong together.

    Raises:
        ForgedEvidenceError: not signed by one trusted key, or not about the same bytes and registration.
        EvidenceError: not envelopes, or not our statements.
    """
    first, second = read_envelope(pair.measurements), read_envelope(pair.decision)
    measured_by = verify(first, keys, payload_type=PAYLOAD_TYPE)
    decided_by = verify(second, keys, payload_type=PAYLOAD_TYPE)
    signers = tuple(key for key in decided_by.signers if key in measured_by.signers)
    if not signers:
        message = f"measured by {measured_by.key}, decided by {decided_by.key}: no key signed both"
        raise ForgedEvidenceError(message, remedy=_REMEDY)
    measured, decided = read_measured(measured_by.payload), read_decided(decided_by.payload)
    if decided.measurements != digest_bytes(first.to_json()):
        raise ForgedEvidenceError("the decision was made from other measurements", remedy=_REMEDY)
    if (measured.binding, measured.subject) != (decided.binding, decided.subject):
        raise ForgedEvidenceError("measurements and decision are about different models", remedy=_REMEDY)
    return Opened(measured, decided, signers)
