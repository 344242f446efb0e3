"""A hardened model as a new version of the model it came from.

Each step is found again before it is made: the run by its job, the logged model by run and digest, the version by its
source. So a run that was killed after any step is completed by the next, and nothing exists twice. The source, and not
a tag, is what finds the version: copying a version copies its tags.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantguard.core.errors import RegistryError
from quantguard.core.model import VersionIdentity
from quantguard.core.progress import Progress
from quantguard.registry.interface import Publication
from quantguard.registry.locations import logged_model_id
from quantguard.registry.records import JobRun, literal, version_tags
from quantguard.registry.store import list_files, open_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


def ensure_derivative(
    client: MlflowClient,
    identity: VersionIdentity,
    hardened: Path,
    *,
    run: JobRun,
    publication: Publication,
    source_digest: str,
    progress: Progress,
) -> str:
    """The version number of the derivative of `identity` that this job made from `hardened`."""
    origin = {
        "quantguard.derived_from": str(identity),
        "quantguard.source": identity.source,
        "quantguard.source_created": str(identity.created),
    } | ({"quantguard.source_digest": source_digest} if source_digest else {})
    known = client.get_run(run.run_id).data.tags
    for key, value in origin.items():
        if known.get(key) != value:
            client.set_tag(run.run_id, key, value)
    model = _logged_model(client, run, publication.model_digest, origin)
    _lineage(client, run, logged_model_id(identity.source), model.model_id)
    if str(model.status) != "READY":
        upload_model(client, model.model_id, hardened, progress)
        client.finalize_logged_model(model.model_id, "READY")
    return _version(client, identity.name, model.model_id, run, version_tags(publication, run) | origin)


def _logged_model(client: MlflowClient, run: JobRun, digest: str, origin: dict[str, str]) -> LoggedModel:
    found = client.search_logged_models(
        [run.experiment_id],
        f"source_run_id = '{run.run_id}' AND tags.`quantguard.model_digest` = '{literal(digest)}'",
    )
    usable = sorted(
        (model for model in found if str(model.status) in ("PENDING", "READY")), key=lambda model: model.model_id
    )
    if usable:
        return usable[0]
    tags = origin | {"quantguard.model_digest": digest}
    return client.create_logged_model(run.experiment_id, name="hardened", source_run_id=run.run_id, tags=tags)


def _lineage(client: MlflowClient, run: JobRun, source_model: str | None, model_id: str) -> None:
    """Source model -> run -> hardened model; a source that is not a logged model is named by the tags alone."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    known = client.get_run(run.run_id)
    inputs = [model.model_id for model in known.inputs.model_inputs] if known.inputs else []
    outputs = [model.model_id for model in known.outputs.model_outputs] if known.outputs else []
    if source_model is not None and source_model not in inputs:
        client.log_inputs(run.run_id, models=[LoggedModelInput(source_model)])
    # The server answers a repeated output with a database error.
    if model_id not in outputs:
        client.log_outputs(run.run_id, [LoggedModelOutput(model_id, step=0)])


def upload_model(client: MlflowClient, model_id: str, directory: Path, progress: Progress) -> None:
    """Log every file of `directory` as a raw artifact of the logged model; `progress` counts bytes.

    Raises:
        RegistryError: the store does not list what was sent.
    """
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    sizes = {path.relative_to(directory).as_posix(): path.stat().st_size for path in paths}
    total, done = sum(sizes.values()), 0
    for path in paths:
        relative = path.relative_to(directory)
        progress("upload", done, total, relative.as_posix())
        parent = relative.parent.as_posix()
        client.log_model_artifact(model_id, str(path), None if parent == "." else parent)
        done += sizes[relative.as_posix()]
    progress("upload", total, total)
    store = open_store(str(client.get_logged_model(model_id).artifact_location), client.tracking_uri)
    listed = {file.path: file.size or 0 for file in list_files(store, f"models:/{model_id}")}
    if listed != sizes:
        wrong = sorted(path for path in listed.keys() | sizes.keys() if listed.get(path) != sizes.get(path))
        raise RegistryError(f"models:/{model_id} does not hold what was sent: {wrong[:3]}", remedy="run again")


def _version(client: MlflowClient, name: str, model_id: str, run: JobRun, tags: dict[str, str]) -> str:
    source = f"models:/{model_id}"
    found = [v for v in client.search_model_versions(f"source_path = '{source}'") if v.name == name]
    if found:
        return min((str(v.version) for v in found), key=int)
    # await_creation_for=0: SQL stores create versions at once, and waiting logs to the terminal.
    version = client.create_model_version(name, source, run.run_id, tags=tags, model_id=model_id, await_creation_for=0)
    return str(version.version)
