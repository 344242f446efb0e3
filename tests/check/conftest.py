from __future__ import annotations

import pytest
from mlflow import MlflowClient

from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.register import register_directory
from tests.registry.world import FILES, write_files


@pytest.fixture(scope="session")
def client(mlflow_server: EmbeddedServer) -> MlflowClient:
    return MlflowClient(mlflow_server.uri, mlflow_server.uri)


@pytest.fixture(scope="session")
def logged_source(mlflow_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`models:/m-...` of one logged model that many versions share."""
    directory = write_files(tmp_path_factory.mktemp("logged"), FILES)
    return register_directory(mlflow_server.uri, "shared-by-checks", directory).source
