"""Small models, publications, and pictures of a registry that compare."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel

from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Verdict
from quantguard.registry.interface import Publication

_numbers = itertools.count(1)

FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 4,
    "tokenizer/added tokens.json": b"[]",
    "empty.txt": b"",
}


def write_files(directory: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def read_files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


class Steps:
    """A `Progress` that remembers the counts it was given."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        self.counts.append((done, total))


def fresh_name(stem: str = "model") -> str:
    return f"{stem}-{next(_numbers)}"


def publication(directory: Path, verdict: Verdict, *, job: str = "", digest: str = "sha256:beef") -> Publication:
    """One with its own job and evidence, unless `job` says otherwise."""
    job = job or f"sha256:{next(_numbers):064x}"
    evidence = write_files(directory / f"evidence-{job[-8:]}", {"decision.json": b"{}", "scan/findings.json": b"[]"})
    return Publication(
        job=job,
        verdict=verdict,
        reasons=("attack rate 3 of 50 is above 5 %", "benchmark lost 2 %"),
        model_digest=digest,
        policy="canary sha256:abcd",
        evidence_digest="sha256:ef01",
        evidence=evidence,
    )


def version_of_logged_model(client: MlflowClient, source: str, name: str = "") -> VersionIdentity:
    """A new model whose version 1 is the logged model `source` (models:/m-...): no files travel."""
    name = name or fresh_name()
    client.create_registered_model(name)
    version = client.create_model_version(name, source, model_id=source.removeprefix("models:/"), await_creation_for=0)
    return VersionIdentity(name, str(version.version), source, int(version.creation_timestamp))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a registry says about one model and the gate's jobs on it, without ids and times."""

    versions: tuple[Any, ...]
    runs: tuple[Any, ...]
    logged_models: tuple[Any, ...]


def snapshot(client: MlflowClient, name: str, jobs: tuple[str, ...]) -> Snapshot:
    experiment = client.get_experiment_by_name("quantguard")
    found = client.search_runs([experiment.experiment_id], max_results=5000) if experiment else []
    runs = [run for run in found if run.data.tags.get("quantguard.job") in jobs]
    hide = {run.info.run_id: "RUN" for run in runs} | {name: "NAME"} | {job: f"JOB{i}" for i, job in enumerate(jobs)}
    models: list[LoggedModel] = []
    for run in runs:
        models += client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    hide |= {model.model_id: "MODEL" for model in models}
    versions = client.search_model_versions(f"name = '{name}'")
    hide |= {str(version.creation_timestamp): f"CREATED{version.version}" for version in versions}

    def hidden(value: object) -> str:
        text = repr(value)
        for secret, cover in hide.items():
            text = text.replace(secret, cover)
        return text

    return Snapshot(
        versions=tuple(
            hidden((v.version, v.source, v.run_id, sorted(v.tags.items()), sorted(v.aliases), v.status))
            for v in (client.get_model_version(name, v.version) for v in reversed(versions))
        ),
        runs=tuple(hidden(_run_picture(client, run.info.run_id)) for run in runs),
        logged_models=tuple(
            (str(model.status), sorted(info.path for info in client.list_logged_model_artifacts(model.model_id)))
            for model in models
        ),
    )


def _run_picture(client: MlflowClient, run_id: str) -> object:
    run = client.get_run(run_id)
    own_tags = sorted((key, value) for key, value in run.data.tags.items() if key.startswith("quantguard."))
    inputs = [model.model_id for model in run.inputs.model_inputs] if run.inputs else []
    outputs = [model.model_id for model in run.outputs.model_outputs] if run.outputs else []
    evidence = [info.path for info in client.list_artifacts(run_id, "evidence")]
    return run.info.status, own_tags, inputs, outputs, evidence
