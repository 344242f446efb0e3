"""What a signature is about: which registration, which bytes, what was measured and what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from quantguard.core.errors import EvidenceError
from quantguard.core.finding import Finding
from quantguard.core.measurement import Measurements
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Subject, Verdict
from quantguard.core.waiver import Waiver

DEFAULT_ENVIRONMENT = "default"


@dataclass(frozen=True, slots=True)
class Binding:
    """One registration of one set of bytes in one place. Names and numbers come again, tags are copied."""

    identity: VersionIdentity
    model_digest: str  # sha256:HEX of the bytes, as `checkpoint.digest.model_digest`
    environment: str  # the operator's word for a registry, e.g. production

    def names(self, identity: VersionIdentity) -> bool:
        """Whether this is about that registration: name, number, source and creation time."""
        mine = (self.identity.name, self.identity.version, self.identity.source, self.identity.created)
        return mine == (identity.name, identity.version, identity.source, identity.created)


@dataclass(frozen=True, slots=True)
class Attested:
    """What two signed statements say together, once their signatures were verified."""

    binding: Binding
    subject: Subject
    measurements: Measurements | None
    findings: tuple[Finding, ...]  # of the scan of the same bytes
    inputs: tuple[tuple[str, str], ...]  # (key in the policy, sha256:HEX) of what was asked, as `policy.asked`
    policy_digest: str  # sha256:HEX of the policy that the gate decided by
    policy_name: str
    measured_at: str  # as `timestamp`
    decided_at: str  # as `timestamp`
    verdict: Verdict  # the gate's; whoever uses the evidence decides again
    waivers: tuple[Waiver, ...]  # that the gate was given


def timestamp(moment: datetime) -> str:
    """`2026-11-27T19:50:00Z`: a moment in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """The inverse of `timestamp`.

    Raises:
        EvidenceError: `text` is not one.
    """
    try:
        found = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise EvidenceError(f"{text!r} is not a moment", remedy="expected e.g. 2026-11-27T19:50:00Z") from error
    if timestamp(found) != text:  # strptime takes 2026-1-1 too
        raise EvidenceError(f"{text!r} is not a moment", remedy="expected e.g. 2026-11-27T19:50:00Z")
    return found
