"""A registered tiny model and the command that gates it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from quantguard.gate.work import PublishedRecord, Work, make_job
from quantguard.policy.load import load_policy
from quantguard.registry.state import VersionState, version_states
from tests.command import Ran
from tests.registry.world import Snapshot, snapshot
from tests.stories import Kind

# Evidence tells how long hardening took, so its digest is another each time.
_EVIDENCE = re.compile(r"('quantguard\.evidence_digest', ')sha256:[0-9a-f]{64}'")


@dataclass(frozen=True, slots=True)
class Job:
    name: str  # of the registered model, whose version 1 is gated
    uri: str  # tracking URI
    policy: Path
    work: Path

    @property
    def ref(self) -> str:
        return f"models:/{self.name}/1"

    @property
    def command(self) -> tuple[str | Path, ...]:
        return ("gate", self.ref, "--policy", self.policy, "--tracking-uri", self.uri, "--work", self.work)

    def opened(self, root: Path | None = None) -> Work:
        """The work directory, or a copy of it at `root`, as the rooms see it."""
        policy = load_policy(self.policy)
        return Work(root or self.work, make_job(self.ref, policy, seed=0), policy)

    def versions(self) -> tuple[VersionState, ...]:
        return version_states(self.uri, self.name)

    def state(self, client: MlflowClient) -> Snapshot:
        """What the registry says about the model, without ids, times and what depends on them."""
        jobs = {state.tag("quantguard.job") for state in self.versions()} - {None}
        seen = snapshot(client, self.name, tuple(sorted(map(str, jobs))))
        return Snapshot(tuple(_EVIDENCE.sub(r"\1…'", v) for v in seen.versions), seen.runs, seen.logged_models)


@dataclass(frozen=True, slots=True)
class Gated:
    """A job that ran to its end at once."""

    job: Job
    ran: Ran
    published: PublishedRecord

    def lend_evidence(self, other: Job) -> None:
        """To a job on the same bytes under the same policy, fetched and not assessed: assess takes seconds."""
        shutil.copytree(self.job.work / "evidence", other.work / "evidence")


NewJob = Callable[[Kind, Path], Job]
GatedOnce = Callable[[Kind], Gated]
