"""What the gate writes about a version: tags on the version, evidence in a run of the experiment `quantguard`.

The run of a job is found by its tag, so a second run of the gate, or one that follows a kill, completes the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from quantguard.core.errors import EvidenceError, RegistryError
from quantguard.registry.interface import Publication
from quantguard.registry.locations import ArtifactRoots

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

EXPERIMENT: Final = "quantguard"
EVIDENCE: Final = "evidence"  # directory of the run that holds the evidence files
BUNDLES: Final = "bundles"  # directory of the run that holds what was signed, one directory a set of bytes
# MLflow allows 100,000 characters; servers before 2.16 on SQL databases kept 5,000.
_TAG_LIMIT: Final = 5000


@dataclass(frozen=True, slots=True)
class JobRun:
    run_id: str
    experiment_id: str

    @property
    def evidence(self) -> str:
        """URI of the evidence files."""
        return f"runs:/{self.run_id}/{EVIDENCE}"


def record_evidence(client: MlflowClient, roots: ArtifactRoots, publication: Publication) -> JobRun:
    """The job's run with all evidence files in it; writing the same files again is harmless.

    Raises:
        EvidenceError: there are no evidence files.
        RegistryError: the experiment keeps its files outside the registry's own store.
    """
    if not publication.evidence.is_dir() or not any(publication.evidence.iterdir()):
        raise EvidenceError("no evidence to attach", path=publication.evidence, remedy="run the assess stage first")
    run = _job_run(client, roots, publication.job)
    client.log_artifacts(run.run_id, str(publication.evidence), EVIDENCE)
    if publication.bundle is not None:
        client.log_artifacts(run.run_id, str(publication.bundle), f"{BUNDLES}/{publication.bundle.name}")
    return run


def finish(client: MlflowClient, run: JobRun) -> None:
    # set_terminated would print the address of the run.
    if client.get_run(run.run_id).info.status != "FINISHED":
        client.update_run(run.run_id, status="FINISHED")


def _job_run(client: MlflowClient, roots: ArtifactRoots, job: str) -> JobRun:
    experiment_id = _experiment(client, roots)
    # The oldest: two gates that start one job at once agree on the same run from then on.
    runs = client.search_runs(
        [experiment_id], f"tags.`quantguard.job` = '{literal(job)}'", max_results=1, order_by=["start_time ASC"]
    )
    if runs:
        return JobRun(runs[0].info.run_id, experiment_id)
    run = client.create_run(experiment_id, tags={"quantguard.job": job}, run_name=f"quantguard {job[-12:]}")
    return JobRun(run.info.run_id, experiment_id)


def _experiment(client: MlflowClient, roots: ArtifactRoots) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return str(client.create_experiment(EXPERIMENT))
    # Whoever made the experiment chose where its files go: weights and evidence are not sent to a stranger's store.
    roots.require(str(experiment.artifact_location), f"experiment {EXPERIMENT}")
    return str(experiment.experiment_id)


# The job that moved an alias to this version. Written after the alias, so that running a job again neither repeats nor
# undoes: where a later job has moved the alias on, an earlier one does not take it back.
PROMOTED = "quantguard.promoted"


def version_tags(publication: Publication, run: JobRun) -> dict[str, str]:
    bundle = publication.bundle
    signed = {} if bundle is None else {"quantguard.bundle": f"runs:/{run.run_id}/{BUNDLES}/{bundle.name}"}
    return {
        "quantguard.verdict": publication.verdict.value,
        "quantguard.reason": tag_text(" | ".join(publication.reasons)),
        "quantguard.evidence": run.evidence,
        "quantguard.evidence_digest": publication.evidence_digest,
        "quantguard.model_digest": publication.model_digest,
        "quantguard.policy": tag_text(publication.policy),
        "quantguard.job": publication.job,
        **signed,
        **dict(publication.tags),
    }


def write_tags(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    """Set the tags that differ; a rerun of the same job writes none, and so wakes no webhook."""
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)


def tag_text(text: str) -> str:
    """`text` without control characters and lone surrogates, which some databases refuse, cut to a tag's length."""
    clean = re.sub(r"[\x00-\x1f\x7f]+", " ", text).encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= _TAG_LIMIT else clean[: _TAG_LIMIT - 1] + "…"


def literal(text: str) -> str:
    """`text` if it may stand between quotes in an MLflow filter.

    Raises:
        RegistryError: it could end the quotes.
    """
    if not re.fullmatch(r"[\w:.+-]+", text):
        raise RegistryError(f"{text!r} cannot be searched for", remedy="use a digest, sha256:HEX")
    return text
