"""How a model is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from quantguard.core.errors import UsageError

_ALIAS_URI = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[\w\-]+)\Z")
_MODELS_URI = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>[0-9]+)\Z")


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A model version in a registry, as the user names it."""

    name: str
    version: str  # decimal, as MLflow gives it

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class RegisteredAlias:
    """Whatever version of a model holds an alias when somebody looks."""

    name: str
    alias: str

    def __str__(self) -> str:
        return f"models:/{self.name}@{self.alias}"


@dataclass(frozen=True, slots=True)
class LocalDirectory:
    path: Path

    def __str__(self) -> str:
        return str(self.path)


ModelRef = RegisteredVersion | LocalDirectory


def parse_model_ref(text: str) -> ModelRef:
    """`models:/NAME/VERSION`, or a path.

    Raises:
        UsageError: another URI scheme, or a models: URI without a version number.
    """
    if match := _MODELS_URI.match(text):
        return RegisteredVersion(match["name"], match["version"])
    if re.match(r"[a-z][a-z0-9+.-]*:/", text):
        raise UsageError(f"{text!r} does not name one model version", remedy="use models:/NAME/VERSION or a directory")
    return LocalDirectory(Path(text))


def parse_served_ref(text: str) -> RegisteredVersion | RegisteredAlias:
    """`models:/NAME@ALIAS` or `models:/NAME/VERSION`: what a consumer may load.

    Raises:
        UsageError: anything else.
    """
    if match := _ALIAS_URI.match(text):
        return RegisteredAlias(match["name"], match["alias"])
    if match := _MODELS_URI.match(text):
        return RegisteredVersion(match["name"], match["version"])
    raise UsageError(f"{text!r} names no registered version", remedy="use models:/NAME@ALIAS or models:/NAME/VERSION")


@dataclass(frozen=True, slots=True)
class VersionIdentity:
    """What makes a registered version that version and no other.

    Version numbers restart when a model is deleted and made again, so number and name are not enough.
    """

    name: str
    version: str
    source: str  # artifact URI the registry gives
    created: int  # creation timestamp, milliseconds since the epoch
    run_id: str | None = None

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.version}"
