"""What the third room signs: a bundle for each set of bytes that was decided, kept in `work/signed`.

A bundle is made once. A rerun of the same job finds it, and so signs no other time and writes no other tags; only where
something in it would be different is it made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from quantguard import __version__
from quantguard.attest.admission import MOST_SKEW, Refused, Rules, admit_opened
from quantguard.attest.bundle import (
    ENVIRONMENT,
    ML_BOM,
    MODEL_SIGNATURE,
    POLICY,
    file_name,
    folder_files,
    intact,
    read_pair,
    write_bundle,
)
from quantguard.attest.mlbom import Origin, ml_bom
from quantguard.attest.model_signature import sign_manifest
from quantguard.attest.opened import attested
from quantguard.attest.statements import Decided, Measured
from quantguard.attest.tags import to_tags
from quantguard.checkpoint.digest import manifest, named_digest
from quantguard.core.attestation import Attested, Binding, moment, timestamp
from quantguard.core.errors import EvidenceError
from quantguard.core.measurement import Measurements
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Decision, Subject, Verdict
from quantguard.core.waiver import Waiver
from quantguard.evidence.keys import Signer
from quantguard.evidence.ledger_anchors import Ledger
from quantguard.evidence.ledger_entry import Decided as LedgerDecided
from quantguard.evidence.records import canonical_json, digest_bytes, digest_of, read_record, to_plain, write_record
from quantguard.evidence.trusted import TrustedKeys
from quantguard.gate.facts import report_facts
from quantguard.gate.times import measured_at
from quantguard.gate.work import Hardened, Scanned, Signed, Work, read_assessment
from quantguard.policy.evidence import asked
from quantguard.report.write import FORMATS

# Reports of what was assessed, as they are kept in a bundle: those that programs read, and one for people.
_REPORTS = (("json", "report.json"), ("sarif", "report.sarif"), ("junit", "junit.xml"), ("md", "report.md"))


@dataclass(frozen=True, slots=True)
class Signing:
    """With which key, for which environment, into which ledger, at what time."""

    signer: Signer
    environment: str
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ledger: Ledger | None = None

    def sign(self, work: Work, identity: VersionIdentity, digest: str, decision: Decision) -> Signed:
        """The bundle of one set of bytes as it is registered, and its tags; when this returns, the ledger tells of it.

        Raises:
            EvidenceError: what was promoted would be refused wherever it is used, or the bundle cannot be written.
            LedgerError: the ledger is not the one that was written or anchored.
        """
        binding = Binding(identity, digest, self.environment)
        made = _Facts(work, binding, decision, self.signer)
        folder = work.signed / decision.subject.value
        record, inputs = work.signed / f"{decision.subject.value}.json", made.inputs()
        if read_record(record, "signed", str, inputs=inputs) is None or intact(folder, made.keys) is None:
            record.unlink(missing_ok=True)
            now = self.clock()
            measured, decided = made.measured(), made.decided(timestamp(now))
            files = made.files() | made.signed_files(attested(measured, decided))
            write_bundle(folder, measured, decided, files, self.signer)
            write_record(record, "signed", str, timestamp(now), inputs=inputs)
        self._require_admissible(made)
        pair = read_pair(folder)
        return Signed(tuple(to_tags(pair).items()), folder, self._entered(made, digest_bytes(pair.decision)))

    def _entered(self, made: _Facts, decision: str) -> tuple[str, ...]:
        if self.ledger is None:
            return ()
        policy = made.work.policy
        told = LedgerDecided(made.binding, made.decision.verdict, policy.policy.name, policy.digest, decision)
        return self.ledger.enter(told, self.signer, now=self.clock())[1]

    def _require_admissible(self, made: _Facts) -> None:
        """What is promoted is what a registry that decides again will take."""
        folder = made.work.signed / made.subject.value
        opened = intact(folder, made.keys)
        if opened is None:
            raise EvidenceError("the bundle is not what was signed", path=folder, remedy="run again")
        now = self.clock()
        if moment(opened.measured.measured_at) - now > MOST_SKEW:
            raise EvidenceError("measured in the future", path=made.work.evidence, remedy="set the clocks, gate again")
        if made.decision.verdict is not Verdict.PROMOTE:
            return
        rules = Rules(made.work.policy, made.keys, self.environment)
        answer = admit_opened(opened, made.binding, rules, now=now)
        if isinstance(answer, Refused):
            raise EvidenceError(f"{answer.rule}: {answer.message}", path=made.work.root, remedy=answer.remedy)


@dataclass(frozen=True, slots=True)
class _Facts:
    """Everything that is signed of one set of bytes, but for the time."""

    work: Work
    binding: Binding
    decision: Decision
    signer: Signer

    @property
    def keys(self) -> TrustedKeys:
        return TrustedKeys.of(self.signer.public)

    @property
    def subject(self) -> Subject:
        return self.decision.subject

    def inputs(self) -> str:
        said = self.decided("")
        plain = {**to_plain(Decided, said), "evidence": self.work.evidence_digest(), "key": self.signer.public.key_id}
        return digest_of(plain)

    def measured(self) -> Measured:
        found = self.measurements()
        scan = "scan" if self.subject is Subject.ORIGINAL else "scan-hardened"
        scanned = read_record(self.work.evidence / f"{scan}.json", scan, Scanned)
        files = folder_files(self.work.evidence, "evidence")
        return Measured(
            binding=self.binding,
            subject=self.subject,
            measurements=found,
            findings=() if scanned is None else scanned.findings,
            inputs=asked(self.work.policy),
            materials=tuple(sorted((name, digest_bytes(data)) for name, data in files.items())),
            measured_at=measured_at(self.work, self.subject, found),
        )

    def decided(self, at: str) -> Decided:
        hardened = self.subject is Subject.HARDENED
        return Decided(
            binding=self.binding,
            subject=self.subject,
            verdict=self.decision.verdict,
            reasons=self.decision.reasons,
            waivers=given_waivers(self.work, self.binding.model_digest),
            policy_name=self.work.policy.policy.name,
            policy_digest=self.work.policy.digest,
            measurements="",
            decided_at=at,
            derived_from=self.work.require_fetched().model_digest if hardened else "",
        )

    def measurements(self) -> Measurements | None:
        name = f"measurements-{self.subject.value}"
        return read_record(self.work.evidence / f"{name}.json", name, Measurements)

    def files(self) -> dict[str, bytes]:
        """Every file of the bundle but the envelopes."""
        facts = report_facts(self.work)
        found = folder_files(self.work.evidence, "evidence")
        found |= {f"report/{name}": FORMATS[kind](facts).encode() for kind, name in _REPORTS}
        found[POLICY] = self.work.policy.text
        for number, layer in enumerate(self.work.policy.written.layers):
            found[f"policy/{number}-{file_name(layer.document.path.name)}"] = layer.document.data
        if (waivers := found.get("evidence/waivers.yaml")) is not None:
            found["waivers.yaml"] = waivers
        found[ENVIRONMENT] = canonical_json(self._environment()) + b"\n"
        return found

    def signed_files(self, told: Attested) -> dict[str, bytes]:
        """The bill of materials, and of what is promoted the signature of its bytes."""
        directory = self.work.model if self.subject is Subject.ORIGINAL else self.work.hardened
        listed = manifest(directory)
        if named_digest(listed) != self.binding.model_digest:
            raise EvidenceError("the bytes changed since they were measured", path=directory, remedy="gate them again")
        found = {ML_BOM: ml_bom(told, self.decision, files=listed, origin=self._origin())}
        if self.decision.verdict is Verdict.PROMOTE:
            found[MODEL_SIGNATURE] = sign_manifest(listed, self.signer, name=str(self.binding.identity))
        return found

    def _origin(self) -> Origin | None:
        if self.subject is Subject.ORIGINAL:
            return None
        fetched = self.work.require_fetched()
        hardened = read_record(self.work.evidence / "hardening.json", "hardening", Hardened)
        return None if hardened is None else Origin(fetched.identity, fetched.model_digest, hardened.summary)

    def _environment(self) -> dict[str, Any]:
        measured = self.measurements()
        found: dict[str, Any] = {"schema": "quantguard.environment/1", "quantguard": __version__}
        found["network"] = read_assessment(self.work).network
        if measured is not None:
            environment = measured.environment
            found |= {"device": environment.device, "seed": environment.seed, "versions": dict(environment.versions)}
        return found


def given_waivers(work: Work, digest: str) -> tuple[Waiver, ...]:
    """The waivers that the gate was given for the bytes of `digest`, in force or not."""
    given = () if work.allowed is None else work.allowed.file.waivers
    return tuple(waiver for waiver in given if waiver.model_digest == digest)
