"""Put a local model directory into an MLflow registry, as the demo, the canaries and the tests do."""

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
    from mlflow.entities.model_registry import RegisteredModel


def register_directory(
    tracking_uri: str,
    name: str,
    directory: Path,
    *,
    tags: Mapping[str, str] | None = None,
    description: str | None = None,
    experiment: str = "models",
    progress: Progress = silent,
) -> VersionIdentity:
    """Log `directory` as the raw artifacts of a logged model and register that as the next version of `name`.

    `experiment` is where the logged model goes; `description` and `tags` are the version's.

    Raises:
        NothingToGateError: the directory holds no files.
        RegistryError: the server refused, or did not answer.
    """
    from mlflow import MlflowClient

    if not any(path.is_file() for path in directory.rglob("*")):
        raise NothingToGateError("holds no files", path=directory, remedy="name a model directory")
    with translated(f"registering {directory} as {name}"):
        client = MlflowClient(tracking_uri, tracking_uri)
        known = client.get_experiment_by_name(experiment)
        experiment_id = known.experiment_id if known else client.create_experiment(experiment)
        if registered_model(client, name) is None:
            client.create_registered_model(name)
        model = client.create_logged_model(experiment_id, name="model")
        upload_model(client, model.model_id, directory, progress)
        client.finalize_logged_model(model.model_id, "READY")
        version = client.create_model_version(
            name,
            f"models:/{model.model_id}",
            tags=dict(tags or {}),
            description=description,
            model_id=model.model_id,
            await_creation_for=0,
        )
    return VersionIdentity(name, str(version.version), str(version.source), int(version.creation_timestamp))


def registered_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """The registered model, None where there is none of that name.

    Raises:
        RegistryError: no answer, or no permission.
    """
    try:
        with translated(f"looking for {name}"):
            return client.get_registered_model(name)
    except ModelNotFoundError:
        return None
