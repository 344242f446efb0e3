"""The work directory: plain files that pass between the three rooms.

    work/job.json              what was asked
    work/fetched.json          which version came, and the digest of its bytes
    work/model/                those bytes, as they came
    work/evidence/             scan, measurements, hardening, outcome: one file each; policy and waivers as they were
    work/hardened/model/       the hardened checkpoint, where there is one
    work/errands/asked/        what the second room asks of rooms that see no weights
    work/errands/done/         what they answered
    work/scratch/              what a room needs only while it works
    work/report/               the same in forms for readers and programs
    work/signed/               a bundle of signed evidence for each set of bytes, where there is a key
    work/published.json        what was done in the registry

Each room has folders of its own to write in, so that a container may be given the rest read-only: assess writes in
evidence, errands/asked, hardened, scratch and report, and never beside them.

Every JSON file is written whole or not at all and carries the digest of its inputs, so that a stage that died is run
again from its last finished step, and a step is redone exactly when its inputs changed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

from quantguard import __version__
from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import EvidenceError, StaleWorkError
from quantguard.core.finding import Finding
from quantguard.core.hardening import HardeningSummary
from quantguard.core.layer import LayerScan
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import GateOutcome
from quantguard.evidence.errands import Errands
from quantguard.evidence.records import digest_file, digest_of, read_record, to_plain, write_record
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.waivers_file import LoadedWaivers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked of the gate."""

    ref: str  # as the user named the model
    policy: str  # its name
    policy_digest: str
    policy_inputs_digest: str  # of the probes, calibration prompts and tasks that the policy names
    seed: int
    version: str  # of QuantGuard: what another version measured is measured again

    @property
    def digest(self) -> str:
        return digest_of(to_plain(Job, self))


@dataclass(frozen=True, slots=True)
class Fetched:
    identity: VersionIdentity
    model_digest: str


@dataclass(frozen=True, slots=True)
class Scanned:
    findings: tuple[Finding, ...]
    tensors: int
    weights: int
    layers: tuple[LayerScan, ...] = ()  # what was measured, worst first


@dataclass(frozen=True, slots=True)
class Hardened:
    summary: HardeningSummary
    model_digest: str  # of the hardened directory


@dataclass(frozen=True, slots=True)
class Assessment:
    outcome: GateOutcome
    hardening_note: str  # why the model was hardened, or why it was not
    network: str  # none where the room had no network, reachable where it could not be sealed


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    events: tuple[str, ...]  # what happened in the registry, one sentence each, in order
    evidence: str  # where the registry keeps the evidence; empty where it keeps none
    derivative: VersionIdentity | None
    bundles: tuple[str, ...] = ()  # directories of signed evidence, of what is used first; none without a key


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed of one set of bytes."""

    tags: tuple[tuple[str, str], ...]  # of the version
    bundle: Path  # directory
    events: tuple[str, ...] = ()  # what was done elsewhere with it, one sentence each


@dataclass(frozen=True, slots=True)
class Allowed:
    """What people have allowed, and the day that it is asked on."""

    file: LoadedWaivers
    today: date  # in UTC


@dataclass(frozen=True, slots=True)
class Work:
    """The files of one job, under `root`, with the policy it is judged by."""

    root: Path
    asked: Job
    policy: LoadedPolicy
    # No part of the job: what was measured holds with and without them.
    allowed: Allowed | None = None

    @property
    def job(self) -> Path:
        return self.root / "job.json"

    @property
    def fetched(self) -> Path:
        return self.root / "fetched.json"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    @property
    def hardened(self) -> Path:
        return self.root / "hardened" / "model"

    @property
    def errands(self) -> Errands:
        return Errands(self.root / "errands")

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def signed(self) -> Path:
        return self.root / "signed"

    @property
    def published(self) -> Path:
        return self.root / "published.json"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Claim the directory for this job, or find it claimed by the same one; within it nobody else works there.

        Raises:
            StaleWorkError: another job's work is there, or another process is at work in it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        directory = os.open(self.root, os.O_RDONLY)
        try:
            self._lock(directory)
            self._claim()
            yield
        finally:
            os.close(directory)  # and with it the lock, which ends with a killed process too

    def _lock(self, directory: int) -> None:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StaleWorkError(
                "another run is at work here", path=self.root, remedy="wait until it is over, or end it, and run again"
            ) from error
        except OSError:  # a network file system that locks no directories: the operator sees to it
            return

    def _claim(self) -> None:
        before = read_record(self.job, "job", Job)
        if before is not None and before != self.asked:
            remedy = "name another --work directory, or remove this one"
            message = f"holds the work of {before.ref} under another policy, seed or version ({before.policy})"
            raise StaleWorkError(message, path=self.root, remedy=remedy)
        if before is None:
            write_record(self.job, "job", Job, self.asked, inputs=self.asked.digest)

    def require_fetched(self) -> Fetched:
        """What fetch left, with the bytes it left it for.

        Raises:
            EvidenceError: fetch has not run for this job, or the bytes have changed since.
        """
        fetched = read_record(self.fetched, "fetched", Fetched, inputs=self.asked.digest)
        if fetched is None:
            raise EvidenceError("the model has not been fetched", path=self.root, remedy="run --stage fetch first")
        if not self.model.is_dir() or model_digest(self.model) != fetched.model_digest:
            raise EvidenceError(
                "the bytes changed since they were fetched", path=self.model, remedy="run --stage fetch"
            )
        return fetched

    def step(
        self,
        name: str,
        kind: type[T],
        inputs: str,
        compute: Callable[[], T],
        *,
        final: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """The body of `evidence/NAME.json` where it was made from `inputs` and is `final`; else it is made anew."""
        path = self.evidence / f"{name}.json"
        stored = read_record(path, name, kind, inputs=inputs)
        if stored is not None and final(stored):
            return stored
        body = compute()
        write_record(path, name, kind, body, inputs=inputs)
        return body

    def evidence_digest(self) -> str:
        """`sha256:HEX` over the names and bytes of all evidence files."""
        files = sorted(path for path in self.evidence.rglob("*") if path.is_file() and not path.name.startswith("."))
        return digest_of([[path.relative_to(self.evidence).as_posix(), digest_file(path)] for path in files])


def read_assessment(work: Work) -> Assessment:
    """What assess left.

    Raises:
        EvidenceError: it has not finished.
    """
    assessed = read_record(work.evidence / "outcome.json", "outcome", Assessment)
    if assessed is None:
        raise EvidenceError("the model has not been assessed", path=work.root, remedy="run --stage assess first")
    return assessed


def make_job(ref: str, policy: LoadedPolicy, *, seed: int) -> Job:
    """The job of gating `ref` under `policy`."""
    return Job(ref, policy.policy.name, policy.digest, policy.inputs_digest, seed, __version__)


def default_root(job: Job, parent: Path) -> Path:
    """Where a job works when the user names no directory: the same job, the same place, so that a rerun resumes."""
    readable = "".join(c if c.isalnum() else "-" for c in job.ref).strip("-")[-40:]
    return parent / f"{readable}-{job.digest[-8:]}"
