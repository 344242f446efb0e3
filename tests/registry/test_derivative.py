from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Verdict
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.interface import Publication
from quantguard.registry.mlflow_registry import MlflowRegistry
from tests.registry.dying import DyingClient, KilledError
from tests.registry.world import (
    FILES,
    Snapshot,
    Steps,
    publication,
    read_files,
    snapshot,
    version_of_logged_model,
    write_files,
)


def publish_all(
    registry: MlflowRegistry, original: VersionIdentity, hardened: Path, repaired: Publication, blocked: Publication
) -> VersionIdentity:
    """What the gate does with a model whose repair passed."""
    derived = registry.register_derivative(original, hardened, publication=repaired, source_digest=blocked.model_digest)
    registry.promote(derived, alias="champion", publication=repaired)
    registry.block(original, alias="champion", publication=blocked)
    return derived


def test_a_derivative_has_lineage_evidence_and_the_bytes_that_were_given(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    hardened = write_files(tmp_path / "hardened", FILES | {"model.safetensors": b"repaired"})
    wanted = publication(tmp_path, Verdict.PROMOTE)
    steps = Steps()
    derived = registry.register_derivative(
        version,
        hardened,
        publication=wanted,
        source_digest="sha256:0ld",
        progress=steps,
    )
    assert (derived.name, derived.version) == (version.name, "2")
    tags = client.get_model_version(derived.name, "2").tags
    assert tags["quantguard.derived_from"] == f"models:/{version.name}/1"
    assert tags["quantguard.source"] == version.source
    assert tags["quantguard.source_digest"] == "sha256:0ld"
    assert derived.run_id is not None
    run = client.get_run(derived.run_id)
    assert run.inputs is not None
    assert run.outputs is not None
    assert [model.model_id for model in run.inputs.model_inputs] == [version.source.removeprefix("models:/")]
    assert [f"models:/{model.model_id}" for model in run.outputs.model_outputs] == [derived.source]
    registry.download(derived, tmp_path / "fetched")
    assert read_files(tmp_path / "fetched") == read_files(hardened)
    total = sum(map(len, read_files(hardened).values()))
    assert steps.counts[0] == (0, total)
    assert steps.counts[-1] == (total, total)


def test_another_job_or_other_bytes_make_another_derivative(
    registry: MlflowRegistry, version: VersionIdentity, tmp_path: Path
) -> None:
    hardened = write_files(tmp_path / "hardened", FILES)
    first = publication(tmp_path, Verdict.PROMOTE)
    made = [
        registry.register_derivative(version, hardened, publication=wanted).version
        for wanted in (
            first,
            first,
            publication(tmp_path, Verdict.PROMOTE),
            replace(first, model_digest="sha256:other"),
        )
    ]
    assert made == ["2", "2", "3", "4"]


def test_a_copied_version_is_not_taken_for_the_derivative(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    hardened = write_files(tmp_path / "hardened", FILES)
    wanted = publication(tmp_path, Verdict.PROMOTE)
    derived = registry.register_derivative(version, hardened, publication=wanted)
    client.delete_model_version(derived.name, derived.version)
    forged = client.create_model_version(
        version.name,
        version.source,
        model_id=version.source.removeprefix("models:/"),
        tags={"quantguard.job": wanted.job, "quantguard.model_digest": wanted.model_digest},
        await_creation_for=0,
    )
    again = registry.register_derivative(version, hardened, publication=wanted)
    assert again.version != str(forged.version)
    assert again.source == derived.source


def test_a_room_writes_nothing_to_the_terminal(
    registry: MlflowRegistry, version: VersionIdentity, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hardened = write_files(tmp_path / "hardened", FILES)
    repaired, blocked = publication(tmp_path, Verdict.PROMOTE), publication(tmp_path, Verdict.BLOCK)
    derived = publish_all(registry, version, hardened, repaired, blocked)
    registry.download(derived, tmp_path / "fetched")
    assert capfd.readouterr() == ("", "")


def kill_points(writes: list[str]) -> list[int]:
    """After how many writes to die: every number but those between a third and a later write of the same kind."""
    return [i for i, write in enumerate(writes) if writes[max(i - 2, 0) : i] != [write, write]]


def test_killed_after_any_write_and_run_again_it_ends_in_the_same_state(
    mlflow_server: EmbeddedServer, client: MlflowClient, logged_source: str, tmp_path: Path
) -> None:
    hardened = write_files(tmp_path / "hardened", {"config.json": b"{}", "model.safetensors": b"repaired"})

    def end_state(survives: int) -> tuple[Snapshot, list[str], bool]:
        """Publish with a client that dies, then with one that does not."""
        original = version_of_logged_model(client, logged_source)
        client.set_registered_model_alias(original.name, "champion", "1")
        repaired = publication(tmp_path, Verdict.PROMOTE)
        blocked = publication(tmp_path, Verdict.BLOCK)
        dying = DyingClient(mlflow_server.uri, survives)
        killed = False
        try:
            publish_all(MlflowRegistry(mlflow_server.uri, client=dying), original, hardened, repaired, blocked)
        except KilledError:
            killed = True
        healthy = DyingClient(mlflow_server.uri, survives=1000)
        publish_all(MlflowRegistry(mlflow_server.uri, client=healthy), original, hardened, repaired, blocked)
        writes = dying.done + healthy.done
        return snapshot(client, original.name, (repaired.job, blocked.job)), writes, killed

    undisturbed, writes, killed = end_state(survives=1000)
    assert not killed
    assert len(undisturbed.versions) == 2
    assert undisturbed.logged_models == (("READY", ["config.json", "model.safetensors"]),)
    total = len(writes) - 3  # the second, whole run wrote the same evidence over itself three times
    assert writes[total:] == ["log_artifacts"] * 3
    for survives in kill_points(writes[:total]):
        state, after, killed = end_state(survives)
        assert killed
        assert state == undisturbed, f"killed after {survives} writes"
        assert after.count("set_registered_model_alias") == 1, f"killed after {survives} writes"
        assert after.count("create_model_version") == 1, f"killed after {survives} writes"
