"""Which registry a reference belongs to."""

from __future__ import annotations

from quantguard.core.errors import UsageError
from quantguard.core.model import LocalDirectory, parse_model_ref
from quantguard.registry.interface import Registry


def registry_for(ref: str, tracking_uri: str | None) -> Registry:
    """MLflow for `models:/NAME/VERSION`, the file system for a directory.

    Raises:
        UsageError: a registered model without a tracking URI, or a reference that names no model.
    """
    if isinstance(parse_model_ref(ref), LocalDirectory):
        from quantguard.registry.directory import DirectoryRegistry

        return DirectoryRegistry()
    if not tracking_uri:
        raise UsageError(
            f"{ref} is in a registry, but which one?", remedy="give --tracking-uri, or set MLFLOW_TRACKING_URI"
        )
    from quantguard.registry.mlflow_registry import MlflowRegistry

    return MlflowRegistry(tracking_uri)
