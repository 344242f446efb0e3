from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.registry.embedded import EmbeddedServer
from tests.attest.consumer import World
from tests.attest.made import SIGNER, write_made_policy


@pytest.fixture(scope="module")
def client(mlflow_server: EmbeddedServer) -> MlflowClient:
    return MlflowClient(mlflow_server.uri, mlflow_server.uri)


@pytest.fixture
def world(mlflow_server: EmbeddedServer, client: MlflowClient, tmp_path: Path) -> World:
    keys = tmp_path / "gate.pub.pem"
    keys.write_bytes(SIGNER.public.pem())
    return World(mlflow_server.uri, client, write_made_policy(tmp_path / "policy"), keys, tmp_path)
