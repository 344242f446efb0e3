"""Put a local model directory into an MLflow registry, as the demo and the tests do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from quantguard.core.errors import ModelNotFoundError, NothingToGateError
from quantguard.core.model import VersionIdentity
from quantguard.core.progress import Progress, silent
from quantguard.registry.derivative import upload_model
from quantguard.registry.errors import translated

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EXPERIMENT = "models"


def register_directory(
    tracking_uri: str,
    name: str,
    directory: Path,
    *,
    tags: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> VersionIdentity:
    """Log `directory` as the raw artifacts of a logged model and register that as the next version of `name`.

    Raises:
        NothingToGateError: the directory holds no files.
        RegistryError: the server refused, or did not answer.
    """
    from mlflow import MlflowClient

    if not any(path.is_file() for path in directory.rglob("*")):
        raise NothingToGateError("holds no files", path=directory, remedy="name a model directory")
    with translated(f"registering {directory} as {name}"):
        client = MlflowClient(tracking_uri, tracking_uri)
        experiment = client.get_experiment_by_name(_EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(_EXPERIMENT)
        if not _exists(client, name):
            client.create_registered_model(name)
        model = client.create_logged_model(experiment_id, name="model")
        upload_model(client, model.model_id, directory, progress)
        client.finalize_logged_model(model.model_id, "READY")
        version = client.create_model_version(
            name, f"models:/{model.model_id}", tags=dict(tags or {}), model_id=model.model_id, await_creation_for=0
        )
    return VersionIdentity(name, str(version.version), str(version.source), int(version.creation_timestamp))


def _exists(client: MlflowClient, name: str) -> bool:
    try:
        with translated(f"looking for {name}"):
            client.get_registered_model(name)
    except ModelNotFoundError:
        return False
    return True
