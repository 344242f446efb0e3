"""What a registered model looks like now: for tables, audits and tests."""

from __future__ import annotations

from dataclasses import dataclass

from quantguard.registry.errors import translated


@dataclass(frozen=True, slots=True)
class VersionState:
    version: str
    source: str
    aliases: tuple[str, ...]  # sorted
    tags: tuple[tuple[str, str], ...]  # sorted by key

    def tag(self, key: str) -> str | None:
        """The value of one tag, None where it is not set."""
        return dict(self.tags).get(key)


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
    return tuple(
        VersionState(str(v.version), str(v.source), tuple(sorted(v.aliases)), tuple(sorted(v.tags.items())))
        for v in versions
    )
