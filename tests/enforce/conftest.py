from __future__ import annotations

from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from quantguard.registry.embedded import EmbeddedServer
from tests.enforce.world import World, made_settings


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One enforcing `mlflow server` for the whole run; each test has models of its own."""
    root = tmp_path_factory.mktemp("enforced")
    settings = made_settings(root)
    database = f"sqlite:///{root / 'mlflow.db'}"
    with EmbeddedServer(root / "server", database=database, registry=settings.uri(database)) as server:
        yield World(server.uri, MlflowClient(server.uri, server.uri), settings)
