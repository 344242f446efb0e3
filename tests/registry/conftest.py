from __future__ import annotations

import pytest
from mlflow import MlflowClient

from quantguard.core.model import VersionIdentity
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.register import register_directory
from tests.registry.world import FILES, version_of_logged_model, write_files


@pytest.fixture(scope="session")
def client(mlflow_server: EmbeddedServer) -> MlflowClient:
    return MlflowClient(mlflow_server.uri, mlflow_server.uri)


@pytest.fixture
def registry(mlflow_server: EmbeddedServer) -> MlflowRegistry:
    return MlflowRegistry(mlflow_server.uri)


@pytest.fixture(scope="session")
def logged_source(mlflow_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`models:/m-...` of one logged model that many versions share."""
    directory = write_files(tmp_path_factory.mktemp("logged"), FILES)
    return register_directory(mlflow_server.uri, "shared", directory).source


@pytest.fixture
def version(client: MlflowClient, logged_source: str) -> VersionIdentity:
    """Version 1 of a model that only this test uses."""
    return version_of_logged_model(client, logged_source)
