"""What the gate asks of the place where models live.

Two rooms answer it: `mlflow_registry.MlflowRegistry` and `directory.DirectoryRegistry`. This module knows neither, and
imports no MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from quantguard.core.model import ModelRef, RegisteredAlias, RegisteredVersion, VersionIdentity
from quantguard.core.progress import Progress, silent
from quantguard.core.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Publication:
    """What is known when something is written to a registry."""

    job: str  # sha256:HEX that identifies this gating job: version identity x policy x model digest
    verdict: Verdict
    reasons: tuple[str, ...]  # one sentence each, worst first
    model_digest: str  # sha256:HEX of the bytes that were assessed; for a derivative, of the hardened ones
    policy: str  # name and digest
    evidence_digest: str  # sha256:HEX over the evidence files
    evidence: Path  # directory of evidence files to attach
    tags: tuple[tuple[str, str], ...] = ()  # signed evidence, to be kept with the version before an alias moves
    bundle: Path | None = None  # directory of what was signed, to attach too; None where nothing was


@dataclass(frozen=True, slots=True)
class Published:
    identity: VersionIdentity
    events: tuple[str, ...]  # what happened, one sentence each, in order
    evidence: str = ""  # where the registry keeps the evidence; empty where it keeps none


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference named at one moment."""

    identity: VersionIdentity
    tags: Mapping[str, str]  # of the version; untrusted text


class Consumed(Protocol):
    """What a consumer asks of a registry."""

    def resolve(self, ref: RegisteredVersion | RegisteredAlias) -> Resolved:
        """What `ref` names now. An alias may name another version at the next moment: ask once.

        Raises:
            ModelNotFoundError: there is no such model, version or alias.
            RegistryError: no answer, no permission, or the version is not ready.
        """

    def download(self, identity: VersionIdentity, destination: Path, *, progress: Progress = silent) -> None:
        """As `Registry.download`."""


class Registry(Protocol):
    """Every method may be run again after it was killed: it completes what is missing and repeats no effect."""

    def identify(self, ref: ModelRef) -> VersionIdentity:
        """What `ref` names now.

        Raises:
            UsageError: this registry does not hold such references.
            NothingToGateError, ModelNotFoundError: there is no such model or version.
            RegistryError: no answer, no permission, or the version is not ready.
        """

    def download(self, identity: VersionIdentity, destination: Path, *, progress: Progress = silent) -> None:
        """Copy the model's files to `destination`, which appears whole or not at all; an older one is replaced.

        `progress` counts bytes. Nothing is followed, executed or unpickled.

        Raises:
            VersionChangedError: deleted or re-created since `identify`.
            RegistryError: its files are not in the registry's own store, or there is no room for them here.
            NothingToGateError: it holds no files.
        """

    def promote(self, identity: VersionIdentity, *, alias: str, publication: Publication) -> Published:
        """Attach the evidence, then point `alias` at this version, last and only if it does not point there yet.

        Raises:
            VersionChangedError: deleted, re-created or re-pointed since `identify`; nothing was written.
        """

    def block(self, identity: VersionIdentity, *, alias: str, publication: Publication) -> Published:
        """Attach the evidence, then take `alias` away from this version if it holds it.

        Raises:
            VersionChangedError: as for `promote`.
        """

    def hold(self, identity: VersionIdentity, *, publication: Publication) -> Published:
        """Attach the evidence and move no alias: what is in production stays when the gate could not tell.

        Raises:
            VersionChangedError: as for `promote`.
        """

    def register_derivative(
        self,
        identity: VersionIdentity,
        hardened: Path,
        *,
        publication: Publication,
        source_digest: str = "",
        progress: Progress = silent,
    ) -> VersionIdentity:
        """Register `hardened` as a new version of the same model, with its lineage and evidence.

        The same job and model digest give the same version however often this is called. `source_digest` is the
        digest of the original's bytes, kept as a tag where it is known.

        Raises:
            VersionChangedError: as for `promote`.
        """
