"""What several rooms' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quantguard.registry.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One real `mlflow server` for the whole run; tests keep apart by using model names of their own."""
    with EmbeddedServer(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
