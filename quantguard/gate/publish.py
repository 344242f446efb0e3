"""The third room: a write credential, no model code. Digests, verdict, registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import EvidenceError, VersionChangedError
from quantguard.core.finding import Finding
from quantguard.core.measurement import Measurements
from quantguard.core.model import LocalDirectory, VersionIdentity, parse_model_ref
from quantguard.core.progress import Progress, silent
from quantguard.core.verdict import Decision, GateOutcome, Subject, Verdict
from quantguard.evidence.records import digest_of, read_record, to_plain, write_record
from quantguard.gate.outcome import Judged, decide_both
from quantguard.gate.waiving import require_kept, waived_both
from quantguard.gate.work import Fetched, Hardened, Job, PublishedRecord, Scanned, Signed, Work, read_assessment
from quantguard.registry.interface import Publication, Registry

_AGAIN = "run --stage assess again"

Sign = Callable[[Work, VersionIdentity, str, Decision], Signed]
"""Signs what was decided about the bytes of a digest, as they are registered: `gate.signing.Signing.sign`."""


def publish(
    work: Work, registry: Registry, *, sign: Sign | None = None, progress: Progress = silent
) -> PublishedRecord:
    """Do in the registry what the policy says about the measurements.

    The verdict is decided again from the stored measurements, never read from a file. Killed anywhere and run again,
    it ends in the same state; the alias moves last, and only if it is not there yet. With `sign`, what was decided
    about each version is signed and kept with it before that, whatever the verdict.

    Raises:
        EvidenceError: assess has not finished, or its files do not belong to these bytes.
        VersionChangedError: deleted, re-created or re-pointed since it was fetched; nothing was written.
        RegistryError: no answer, or no permission.
    """
    with work.opened():
        work.published.unlink(missing_ok=True)  # a run that fails now must not show what an earlier one did
        fetched = work.require_fetched()
        record = _apply(work, fetched, registry, _Signer(sign), progress)
        shutil.rmtree(work.scratch, ignore_errors=True)
        write_record(work.published, "published", PublishedRecord, record, inputs=work.asked.digest)
    return record


def decided(work: Work, fetched: Fetched) -> GateOutcome:
    """The outcome, decided now from the stored measurements.

    Raises:
        EvidenceError: assess has not finished, measured other bytes, or was given other waivers.
    """
    assessed = read_assessment(work)
    require_kept(work)
    original = Judged(_scanned(work, "scan"), _stored(work, Subject.ORIGINAL, fetched.model_digest))
    hardened, repaired = None, None
    if assessed.outcome.hardened is not None:
        repaired = require_hardened(work).model_digest
        measured = _stored(work, Subject.HARDENED, repaired)
        hardened = Judged(_scanned(work, "scan-hardened"), measured)
    outcome = decide_both(work.policy.policy, original, hardened)
    return waived_both(outcome, work, fetched.model_digest, repaired)


def _scanned(work: Work, name: str) -> tuple[Finding, ...]:
    scanned = read_record(work.evidence / f"{name}.json", name, Scanned)
    if scanned is None:
        raise EvidenceError("the scan's evidence is gone", path=work.evidence / f"{name}.json", remedy=_AGAIN)
    return scanned.findings


def _stored(work: Work, subject: Subject, digest: str) -> Measurements | None:
    name = f"measurements-{subject.value}"
    measured = read_record(work.evidence / f"{name}.json", name, Measurements)
    if measured is not None and measured.model_digest != digest:
        raise EvidenceError("these measurements are of other bytes", path=work.evidence / f"{name}.json", remedy=_AGAIN)
    return measured


def require_hardened(work: Work) -> Hardened:
    """What hardening left, with the bytes it left it for.

    Raises:
        EvidenceError: there is none, or its bytes changed.
    """
    hardened = read_record(work.evidence / "hardening.json", "hardening", Hardened)
    if hardened is None or not work.hardened.is_dir() or model_digest(work.hardened) != hardened.model_digest:
        raise EvidenceError("not the checkpoint that was measured", path=work.hardened, remedy=_AGAIN)
    return hardened


class _Signer:
    """Signs publications where there is a key, and knows what it has signed."""

    def __init__(self, sign: Sign | None) -> None:
        self._sign = sign
        self._bundles: list[str] = []
        self._events: list[str] = []

    def signed(
        self, work: Work, publication: Publication, identity: VersionIdentity, decision: Decision
    ) -> Publication:
        """The publication with its evidence signed; as it is without a key."""
        if self._sign is None:
            return publication
        signed = self._sign(work, identity, publication.model_digest, decision)
        self._bundles.append(str(signed.bundle))
        self._events.extend(signed.events)
        return replace(publication, tags=signed.tags, bundle=signed.bundle)

    def record(self, events: tuple[str, ...], evidence: str, derivative: VersionIdentity | None) -> PublishedRecord:
        """What was published, the bundle of what is used first."""
        return PublishedRecord((*self._events, *events), evidence, derivative, tuple(reversed(self._bundles)))


def _apply(work: Work, fetched: Fetched, registry: Registry, signer: _Signer, progress: Progress) -> PublishedRecord:
    outcome = decided(work, fetched)
    alias, identity = work.policy.policy.registry.alias, fetched.identity
    original = _publication(work, identity, fetched.model_digest, outcome.original)
    original = signer.signed(work, original, identity, outcome.original)
    if outcome.hardened is not None and outcome.promoted is Subject.HARDENED:
        hardened_digest = require_hardened(work).model_digest
        repaired = _publication(work, identity, hardened_digest, outcome.hardened)
        derivative = registry.register_derivative(
            identity, work.hardened, publication=repaired, source_digest=fetched.model_digest, progress=progress
        )
        repaired = signer.signed(work, repaired, derivative, outcome.hardened)  # its number is known only now
        if isinstance(parse_model_ref(work.asked.ref), LocalDirectory):  # nothing was registered
            blocked = registry.block(identity, alias=alias, publication=original)
            return signer.record(blocked.events, blocked.evidence, None)
        _require_bytes(work, registry, derivative, hardened_digest)
        # The alias goes straight from the original to its derivative: consumers never find it missing.
        promoted = registry.promote(derivative, alias=alias, publication=repaired)
        blocked = registry.block(identity, alias=alias, publication=original)
        registered = f"hardened derivative registered as version {derivative.version}"
        return signer.record((registered, *promoted.events, *blocked.events), promoted.evidence, derivative)
    match outcome.verdict:
        case Verdict.PROMOTE:
            _require_bytes(work, registry, identity, fetched.model_digest)
            published = registry.promote(identity, alias=alias, publication=original)
        case Verdict.BLOCK:
            published = registry.block(identity, alias=alias, publication=original)
        case Verdict.HOLD:
            published = registry.hold(identity, publication=original)
        case _:
            assert_never(outcome.verdict)
    return signer.record(published.events, published.evidence, None)


def _require_bytes(work: Work, registry: Registry, identity: VersionIdentity, digest: str) -> None:
    """The registry holds, now, the bytes that were measured: artifacts stay writable after a version is registered.

    Raises:
        VersionChangedError: it holds others; no alias was moved.
    """
    again = work.scratch / "again"
    registry.download(identity, again)
    found = model_digest(again)
    shutil.rmtree(again, ignore_errors=True)
    if found != digest:
        raise VersionChangedError(
            f"{identity}: its files are no longer those that were assessed",
            remedy="gate it again in a new --work directory",
        )


def _publication(work: Work, identity: VersionIdentity, digest: str, decision: Decision) -> Publication:
    return Publication(
        job=digest_of([to_plain(VersionIdentity, identity), to_plain(Job, work.asked)]),
        verdict=decision.verdict,
        reasons=tuple(reason.sentence() for reason in decision.failures()),
        model_digest=digest,
        policy=f"{work.policy.policy.name} {work.policy.digest}",
        evidence_digest=work.evidence_digest(),
        evidence=work.evidence,
    )
