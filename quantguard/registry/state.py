"""What a registered model looks like now: for tables, audits and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantguard.core.model import RegisteredVersion, VersionIdentity
from quantguard.registry.errors import translated
from quantguard.registry.mlflow_registry import MlflowRegistry

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True, slots=True)
class VersionState:
    version: str
    source: str
    aliases: tuple[str, ...]  # sorted
    tags: tuple[tuple[str, str], ...]  # sorted by key

    def tag(self, key: str) -> str | None:
        """The value of one tag, None where it is not set."""
        return dict(self.tags).get(key)


def version_state(tracking_uri: str, ref: RegisteredVersion) -> VersionState:
    """One version that is ready to be used.

    Raises:
        UsageError: `tracking_uri` is not the address of a server.
        ModelNotFoundError: there is no such model or version.
        RegistryError: no answer, no permission, or the version is not ready.
    """
    return identified_state(tracking_uri, ref)[1]


def identified_state(tracking_uri: str, ref: RegisteredVersion) -> tuple[VersionIdentity, VersionState]:
    """As `version_state`, with the registration that it is the state of."""
    from mlflow import MlflowClient

    identity = MlflowRegistry(tracking_uri).identify(ref)
    with translated(f"reading {ref}"):
        version = MlflowClient(tracking_uri, tracking_uri).get_model_version(ref.name, ref.version)
    return identity, _state(version)


def version_states(tracking_uri: str, name: str) -> tuple[VersionState, ...]:
    """All versions of a registered model, oldest first.

    Raises:
        RegistryError: no answer, or no permission.
    """
    from mlflow import MlflowClient

    with translated(f"reading the versions of {name}"):
        client = MlflowClient(tracking_uri, tracking_uri)
        quoted = name.replace("'", "''")
        numbers = [version.version for version in client.search_model_versions(f"name='{quoted}'")]
        # The search leaves aliases out; only a version that is read alone has them.
        versions = [client.get_model_version(name, number) for number in sorted(numbers, key=int)]
    return tuple(_state(version) for version in versions)


def _state(version: ModelVersion) -> VersionState:
    return VersionState(
        str(version.version), str(version.source), tuple(sorted(version.aliases)), tuple(sorted(version.tags.items()))
    )
