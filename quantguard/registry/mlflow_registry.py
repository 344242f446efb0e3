"""The registry that is an MLflow server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from quantguard.core.errors import (
    ModelNotFoundError,
    NothingToGateError,
    RegistryError,
    RegistryUnreachableError,
    UsageError,
    VersionChangedError,
)
from quantguard.core.model import ModelRef, RegisteredAlias, RegisteredVersion, VersionIdentity
from quantguard.core.progress import Progress, silent
from quantguard.registry.copying import appearing, copy_directory
from quantguard.registry.derivative import ensure_derivative
from quantguard.registry.errors import redacted, translated
from quantguard.registry.interface import Publication, Published, Resolved
from quantguard.registry.layout import settle
from quantguard.registry.locations import ArtifactRoots, artifact_roots, files_location
from quantguard.registry.names import folded
from quantguard.registry.records import PROMOTED, finish, record_evidence, version_tags, write_tags
from quantguard.registry.store import fetch_files, list_files, open_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


class MlflowRegistry:
    """`quantguard.registry.interface.Registry` over the REST interface of an MLflow server, 3.0 or later.

    Before each operation the server's `/health` is asked once with a short timeout, because MLflow's own client repeats
    a failed request for minutes. Credentials are MLflow's: the environment that it reads itself.
    """

    def __init__(
        self,
        tracking_uri: str,
        *,
        trusted_roots: tuple[str, ...] = (),
        patience: float = 5.0,
        client: MlflowClient | None = None,
    ) -> None:
        """`trusted_roots` are artifact URIs, beside the server's own root, from which models may be fetched.

        `patience` is in seconds: how long the server may take to say that it is there.

        Raises:
            UsageError: not an http or https address.
        """
        split = urlsplit(tracking_uri)
        if split.scheme not in ("http", "https") or not split.hostname:
            raise UsageError(
                f"{redacted(tracking_uri)!r} is not the address of an MLflow server",
                remedy="start one with mlflow server and give http://HOST:PORT",
            )
        self._uri = tracking_uri.rstrip("/")
        self._host = split.netloc.rpartition("@")[2].lower()
        self._trusted = trusted_roots
        self._patience = patience
        self._given = client
        self._own_roots: ArtifactRoots | None = None

    def __repr__(self) -> str:
        return f"MlflowRegistry({redacted(self._uri)!r})"

    @property
    def _client(self) -> MlflowClient:
        if self._given is None:
            from mlflow import MlflowClient

            self._given = MlflowClient(self._uri, self._uri)
        return self._given

    def identify(self, ref: ModelRef) -> VersionIdentity:
        if not isinstance(ref, RegisteredVersion):
            raise UsageError(f"{ref} is not a registered version", remedy="use models:/NAME/VERSION")
        return self.resolve(ref).identity

    def resolve(self, ref: RegisteredVersion | RegisteredAlias) -> Resolved:
        with self.reachable(f"reading {ref}"):
            if isinstance(ref, RegisteredAlias):
                # Asked for an alias that nobody holds, MLflow says that a parameter is invalid.
                number = self._client.get_registered_model(ref.name).aliases.get(ref.alias)
            else:
                number = ref.version
            if number is None:
                remedy = "gate a version, or look which aliases the model has"
                raise ModelNotFoundError(f"no version holds {ref}", remedy=remedy)
            version = self._client.get_model_version(ref.name, number)
        if version.status != "READY":
            raise RegistryError(
                f"{ref} is {version.status}", remedy="wait until its registration is over, or register it again"
            )
        return Resolved(_identity(version), dict(version.tags))

    def download(self, identity: VersionIdentity, destination: Path, *, progress: Progress = silent) -> None:
        with self.reachable(f"fetching {identity}"):
            self._unchanged(identity)
            location = files_location(self._client, identity.name, identity.version)
            roots = self._roots()
            roots.require(location, str(identity))
            with appearing(destination) as partial:
                local = roots.local_path(location)
                if local is None:
                    store = open_store(location, self._uri)
                    fetch_files(store, list_files(store, str(identity)), partial, str(identity), progress)
                elif local.is_dir():
                    copy_directory(local, partial, progress)
                else:
                    raise NothingToGateError(f"{identity} holds no files", remedy="log the model's files again")
                settle(partial)

    def promote(self, identity: VersionIdentity, *, alias: str, publication: Publication) -> Published:
        with self._publishing(identity, "promoting"):
            tagged, evidence = self._record(identity, publication)
            version = self._unchanged(identity)
            holder = self._client.get_registered_model(identity.name).aliases.get(alias)
            if holder == identity.version:
                if version.tags.get(PROMOTED) != publication.job:  # killed between the alias and this tag
                    self._client.set_model_version_tag(identity.name, identity.version, PROMOTED, publication.job)
                stays = f"alias {alias} already at {identity.version}: not moved"
                return Published(identity, (tagged, stays), evidence)
            if version.tags.get(PROMOTED) == publication.job:
                stays = f"alias {alias} was moved to {holder or 'nothing'} since: not moved back"
                return Published(identity, (tagged, stays), evidence)
            self._client.set_registered_model_alias(identity.name, alias, identity.version)
            self._client.set_model_version_tag(identity.name, identity.version, PROMOTED, publication.job)
        moved = f"moved from {holder} to {identity.version}" if holder else f"set to {identity.version}"
        return Published(identity, (tagged, f"alias {alias} {moved}"), evidence)

    def block(self, identity: VersionIdentity, *, alias: str, publication: Publication) -> Published:
        with self._publishing(identity, "blocking"):
            tagged, evidence = self._record(identity, publication)
            held = [name for name in self._unchanged(identity).aliases if _same_alias(name, alias)]
            for name in held:
                self._client.delete_registered_model_alias(identity.name, name)
        return Published(identity, (tagged, *(f"alias {name} removed" for name in held)), evidence)

    def hold(self, identity: VersionIdentity, *, publication: Publication) -> Published:
        with self._publishing(identity, "tagging"):
            tagged, evidence = self._record(identity, publication)
            return Published(identity, (tagged,), evidence)

    def register_derivative(
        self,
        identity: VersionIdentity,
        hardened: Path,
        *,
        publication: Publication,
        source_digest: str = "",
        progress: Progress = silent,
    ) -> VersionIdentity:
        with self._publishing(identity, "registering a derivative of"):
            self._unchanged(identity)
            run = record_evidence(self._client, self._roots(), publication)
            version = ensure_derivative(
                self._client,
                identity,
                hardened,
                run=run,
                publication=publication,
                source_digest=source_digest,
                progress=progress,
            )
            finish(self._client, run)
        return self.identify(RegisteredVersion(identity.name, version))

    def _record(self, identity: VersionIdentity, publication: Publication) -> tuple[str, str]:
        """Evidence and tags; returns the event and where the evidence is."""
        self._unchanged(identity)
        run = record_evidence(self._client, self._roots(), publication)
        version = self._unchanged(identity)  # uploading takes a while
        write_tags(self._client, version, version_tags(publication, run))
        finish(self._client, run)
        return f"version {identity.version} tagged {publication.verdict.value}", run.evidence

    def _unchanged(self, identity: VersionIdentity) -> ModelVersion:
        """The version as it is now.

        Raises:
            VersionChangedError: it is gone, or another one has its number.
        """
        try:
            with translated(f"reading {identity}"):
                version = self._client.get_model_version(identity.name, identity.version)
        except ModelNotFoundError as error:
            raise VersionChangedError(f"{identity} was deleted since it was read", remedy=_START_OVER) from error
        now = _identity(version)
        if (now.source, now.created) != (identity.source, identity.created):
            raise VersionChangedError(
                f"{identity} was made again since it was read: source {redacted(now.source)}, "
                f"was {redacted(identity.source)}",
                remedy=_START_OVER,
            )
        return version

    def _roots(self) -> ArtifactRoots:
        if self._own_roots is None:
            self._own_roots = artifact_roots(self._client, self._host, self._trusted)
        return self._own_roots

    @contextmanager
    def _publishing(self, identity: VersionIdentity, doing: str) -> Iterator[None]:
        try:
            with self.reachable(f"{doing} {identity}"):
                yield
        except ModelNotFoundError as error:
            raise VersionChangedError(
                f"{identity} or its model was deleted meanwhile: {error.message}", remedy=_START_OVER
            ) from error

    @contextmanager
    def reachable(self, doing: str) -> Iterator[None]:
        """Ask the server whether it is there, then raise what MLflow raises inside as a RegistryError."""
        self._probe()
        with translated(doing):
            yield

    def _probe(self) -> None:
        """Any answer will do, a refusal too.

        Raises:
            RegistryUnreachableError: none within the timeout.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        try:
            credentials = get_default_host_creds(self._uri)  # type: ignore[no-untyped-call]  # untyped in MLflow
            http_request(  # type: ignore[no-untyped-call]  # untyped in MLflow
                credentials, "/health", "GET", max_retries=0, timeout=self._patience, raise_on_status=False
            )
        except MlflowException as error:
            raise RegistryUnreachableError(
                f"no answer from {redacted(self._uri)}: {redacted(str(error.__context__ or error))}",
                remedy="check the tracking URI and that the MLflow server runs, then run again",
            ) from error


_START_OVER: Final = "gate it again from the fetch stage"


def _identity(version: ModelVersion) -> VersionIdentity:
    return VersionIdentity(
        name=str(version.name),
        version=str(version.version),
        source=str(version.source),
        created=int(version.creation_timestamp),
        run_id=version.run_id or None,
    )


def _same_alias(one: str, other: str) -> bool:
    """MLflow takes `Champion`, or a name with a trailing newline, for another alias; a reader would not."""
    return folded(one) == folded(other)
