"""Where a version's files are, and whether that place is the registry's own.

A registry user chooses the `source` of a version and the artifact location of an experiment, and the server checks
neither for schemes such as `s3://`. Only what lies under the server's own artifact root is fetched or written: the
proxy `mlflow-artifacts:/`, the parent of the default experiment's location (which the server itself set), and roots
that the operator names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from quantguard.core.errors import ModelNotFoundError, RegistryDeniedError, RegistryError
from quantguard.registry.errors import redacted, translated

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PROXY = "mlflow-artifacts"
_LOGGED_MODEL = re.compile(r"models:/(m-[0-9a-zA-Z]+)\Z")
_REMEDY = "log the files to this server as a model and register that, or name the store as a trusted artifact root"


@dataclass(frozen=True, slots=True)
class _Place:
    scheme: str  # lower case; file for a plain path
    host: str  # empty for the tracking server's own proxy
    parts: tuple[str, ...]  # of the path, unquoted

    def inside(self, root: _Place) -> bool:
        same_store = (self.scheme, self.host) == (root.scheme, root.host)
        return same_store and self.parts[: len(root.parts)] == root.parts


@dataclass(frozen=True, slots=True)
class ArtifactRoots:
    """The places that belong to the registry.

    `own_host` is the host:port of the tracking server, `extra` the roots that the operator trusts.
    """

    own_host: str
    default: str | None  # artifact location of experiment 0
    extra: tuple[str, ...] = ()

    def require(self, location: str, what: str) -> None:
        """Raises:
        RegistryError: `location` is outside, or is written so that it could be.
        """
        place = self._place(location)
        if place is not None and any(place.inside(root) for root in self._roots()):
            return
        raise RegistryError(
            f"{what}: {redacted(location)} is outside the registry's own artifact store", remedy=_REMEDY
        )

    def local_path(self, location: str) -> Path | None:
        """The directory that `location` is on this machine, or None where it is served.

        Raises:
            RegistryError: a symbolic link on the way leads out of the root.
        """
        place = self._place(location)
        if place is None or place.scheme != "file":
            return None
        path = Path("/", *place.parts)
        roots = [Path("/", *root.parts).resolve() for root in self._roots() if root.scheme == "file"]
        if not any(path.resolve().is_relative_to(root) for root in roots):
            raise RegistryError("leads out of the registry's own artifact store", path=path, remedy=_REMEDY)
        return path

    def _roots(self) -> list[_Place]:
        roots = [_Place(_PROXY, "", ())]
        default = self._place(self.default) if self.default else None
        if default is not None and default.parts:
            roots.append(_Place(default.scheme, default.host, default.parts[:-1]))
        roots += [place for place in map(self._place, self.extra) if place is not None]
        # A root directory of "/" would trust every file of this machine.
        return [root for root in roots if root.scheme != "file" or root.parts]

    def _place(self, location: str) -> _Place | None:
        try:
            split = urlsplit(location)
        except ValueError:
            return None
        scheme = split.scheme.lower() or "file"
        if scheme == "file" and not split.path.startswith("/"):
            return None
        if split.query or split.fragment or "@" in split.netloc:
            return None
        parts = tuple(unquote(part) for part in split.path.split("/") if part)
        if any(part in (".", "..") or re.search(r"[%/\\\x00]", part) for part in parts):
            return None
        host = split.netloc.lower()
        return _Place(scheme, "" if scheme == _PROXY and host == self.own_host else host, parts)


def artifact_roots(client: MlflowClient, own_host: str, extra: tuple[str, ...]) -> ArtifactRoots:
    """The roots of this server; experiment 0 may be deleted or hidden, then the proxy and `extra` remain."""
    try:
        with translated("reading the default experiment"):
            default = str(client.get_experiment("0").artifact_location)
    except (ModelNotFoundError, RegistryDeniedError):
        default = None
    return ArtifactRoots(own_host, default, extra)


def logged_model_id(source: str) -> str | None:
    """`m-...` where `source` is `models:/m-...`; over REST a version gives no model id of its own."""
    match = _LOGGED_MODEL.match(source)
    return match[1] if match else None


def files_location(client: MlflowClient, name: str, version: str) -> str:
    """Artifact URI of a version's files, as consumers of `models:/NAME/VERSION` resolve it; not yet checked.

    Raises:
        RegistryError: a `runs:/` URI that names two places.
    """
    location = str(client.get_model_version_download_uri(name, version))
    if model_id := logged_model_id(location):
        return str(client.get_logged_model(model_id).artifact_location)
    return _run_location(client, location) if location.startswith("runs:/") else location


def _run_location(client: MlflowClient, location: str) -> str:
    """MLflow lays a run's artifacts and the run's logged model of that name over each other: only one may exist."""
    run_id, _, path = location.removeprefix("runs:/").partition("/")
    run = client.get_run(run_id)
    name, _, rest = path.partition("/")
    if not re.fullmatch(r"[^'\"\\]+", name):
        return f"{run.info.artifact_uri}/{path}"
    models = [
        model
        for model in client.search_logged_models([run.info.experiment_id], f"name = '{name}'")
        if model.source_run_id == run_id
    ]
    if not models:
        return f"{run.info.artifact_uri}/{path}"
    if len(models) > 1 or any(info.path.split("/")[0] == name for info in client.list_artifacts(run_id)):
        raise RegistryError(
            f"{location} names files of the run and of its logged models at once",
            remedy="register the logged model itself, models:/m-...",
        )
    root = str(models[0].artifact_location)
    return f"{root}/{rest}" if rest else root
