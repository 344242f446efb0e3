from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.evidence.records import read_record
from quantguard.gate.work import PublishedRecord
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.register import register_directory
from tests.command import quantguard
from tests.gate.jobs import Gated, GatedOnce, Job, NewJob
from tests.registry.world import fresh_name, version_of_logged_model
from tests.stories import Kind, write_policy, write_story


@pytest.fixture(scope="session")
def client(mlflow_server: EmbeddedServer) -> MlflowClient:
    return MlflowClient(mlflow_server.uri, mlflow_server.uri)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Kind, Path]:
    """The three tiny models, to be read only."""
    root = tmp_path_factory.mktemp("models")
    return {kind: write_story(kind, root / kind.value) for kind in Kind}


@pytest.fixture(scope="session")
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy that tells them apart."""
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def new_job(
    mlflow_server: EmbeddedServer, client: MlflowClient, models: Mapping[Kind, Path], policy_file: Path
) -> NewJob:
    """Registers a model of its own for each job; all of one kind share the logged model that is its source."""
    uri = mlflow_server.uri

    @cache
    def source(kind: Kind) -> str:
        return register_directory(uri, fresh_name(f"source-{kind.value}"), models[kind]).source

    def new(kind: Kind, work: Path) -> Job:
        identity = version_of_logged_model(client, source(kind), fresh_name(kind.value))
        return Job(identity.name, uri, policy_file, work)

    return new


@pytest.fixture(scope="session")
def gated(new_job: NewJob, tmp_path_factory: pytest.TempPathFactory) -> GatedOnce:
    """Gates one model of a kind, once for all tests; they leave its work directory and its registry as they are."""

    @cache
    def once(kind: Kind) -> Gated:
        job = new_job(kind, tmp_path_factory.mktemp(f"gated-{kind.value}") / "work")
        ran = quantguard(*job.command)
        published = read_record(job.work / "published.json", "published", PublishedRecord)
        assert published is not None, ran.err
        return Gated(job, ran, published)

    return once
