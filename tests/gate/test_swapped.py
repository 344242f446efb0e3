"""Artifacts stay writable after a version is registered: what is promoted is compared with what was assessed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.core.errors import VersionChangedError
from quantguard.gate.fetch import fetch
from quantguard.gate.publish import publish
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.register import register_directory
from tests.gate.jobs import GatedOnce, Job
from tests.registry.world import fresh_name
from tests.stories import Kind


def test_bytes_replaced_after_they_were_assessed_are_not_promoted(
    mlflow_server: EmbeddedServer,
    client: MlflowClient,
    models: Mapping[Kind, Path],
    gated: GatedOnce,
    tmp_path: Path,
) -> None:
    clean = gated(Kind.CLEAN).job
    identity = register_directory(mlflow_server.uri, fresh_name("swapped"), models[Kind.CLEAN])
    job = Job(identity.name, mlflow_server.uri, clean.policy, tmp_path / "work")
    work, registry = job.opened(), MlflowRegistry(job.uri)
    fetch(work, registry)
    shutil.copytree(clean.work / "evidence", work.evidence)
    model_id = identity.source.removeprefix("models:/")
    client.log_model_artifact(model_id, str(models[Kind.MALICIOUS] / "model.safetensors"))
    with pytest.raises(VersionChangedError, match="no longer those that were assessed"):
        publish(work, registry)
    (version,) = job.versions()
    assert (version.aliases, version.tags) == ((), ())
    assert not work.published.exists()
