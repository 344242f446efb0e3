from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.core.errors import EvidenceError, RegistryError, VersionChangedError
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Verdict
from quantguard.registry import records
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.mlflow_registry import MlflowRegistry
from tests.registry.dying import DyingClient, WatchingClient
from tests.registry.world import fresh_name, publication, snapshot, version_of_logged_model


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    return dict(client.get_registered_model(name).aliases)


def test_promoting_tags_the_version_and_sets_the_alias(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    wanted = publication(tmp_path, Verdict.PROMOTE)
    published = registry.promote(version, alias="champion", publication=wanted)
    assert published.identity == version
    assert published.events[-1] == "alias champion set to 1"
    assert aliases(client, version.name) == {"champion": "1"}
    tags = client.get_model_version(version.name, "1").tags
    assert tags["quantguard.verdict"] == "PROMOTE"
    assert tags["quantguard.reason"] == "attack rate 3 of 50 is above 5 % | benchmark lost 2 %"
    assert tags["quantguard.model_digest"] == "sha256:beef"
    assert tags["quantguard.evidence_digest"] == "sha256:ef01"
    assert tags["quantguard.policy"] == "canary sha256:abcd"
    assert tags["quantguard.job"] == wanted.job
    run_id = tags["quantguard.evidence"].removeprefix("runs:/").removesuffix("/evidence")
    assert [info.path for info in client.list_artifacts(run_id, "evidence")] == [
        "evidence/decision.json",
        "evidence/scan",
    ]


def test_promoting_twice_moves_the_alias_once_and_writes_nothing_new(
    mlflow_server: EmbeddedServer, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    wanted = publication(tmp_path, Verdict.PROMOTE)
    counting = DyingClient(mlflow_server.uri, survives=1000)
    registry = MlflowRegistry(mlflow_server.uri, client=counting)
    registry.promote(version, alias="champion", publication=wanted)
    before = snapshot(client, version.name, (wanted.job,))
    counting.done.clear()
    again = registry.promote(version, alias="champion", publication=wanted)
    assert again.events[-1] == "alias champion already at 1: not moved"
    assert counting.done == ["log_artifacts"]  # the same evidence over itself
    assert snapshot(client, version.name, (wanted.job,)) == before


def test_promoting_another_version_says_from_where_the_alias_moved(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    second = client.create_model_version(
        version.name, version.source, model_id=version.source.removeprefix("models:/"), await_creation_for=0
    )
    other = replace(version, version=str(second.version), created=second.creation_timestamp)
    registry.promote(version, alias="champion", publication=publication(tmp_path, Verdict.PROMOTE))
    published = registry.promote(other, alias="champion", publication=publication(tmp_path, Verdict.PROMOTE))
    assert published.events[-1] == "alias champion moved from 1 to 2"


def test_blocking_takes_the_alias_away_from_the_blocked_version_in_any_spelling(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    for alias in ("champion", "Champion", "champion\n", "challenger"):
        client.set_registered_model_alias(version.name, alias, "1")
    published = registry.block(version, alias="champion", publication=publication(tmp_path, Verdict.BLOCK))
    assert aliases(client, version.name) == {"challenger": "1"}
    assert "alias champion removed" in published.events
    assert client.get_model_version(version.name, "1").tags["quantguard.verdict"] == "BLOCK"


def test_blocking_leaves_an_alias_that_another_version_holds(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    client.create_model_version(
        version.name, version.source, model_id=version.source.removeprefix("models:/"), await_creation_for=0
    )
    client.set_registered_model_alias(version.name, "champion", "2")
    registry.block(version, alias="champion", publication=publication(tmp_path, Verdict.BLOCK))
    assert aliases(client, version.name) == {"champion": "2"}


def test_holding_keeps_what_is_in_production(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    client.set_registered_model_alias(version.name, "champion", "1")
    registry.hold(version, publication=publication(tmp_path, Verdict.HOLD))
    assert aliases(client, version.name) == {"champion": "1"}
    assert client.get_model_version(version.name, "1").tags["quantguard.verdict"] == "HOLD"


@pytest.mark.parametrize("made_again", [False, True], ids=["deleted", "made again"])
def test_a_version_that_changed_since_it_was_read_gets_nothing(
    made_again: bool,
    registry: MlflowRegistry,
    client: MlflowClient,
    version: VersionIdentity,
    tmp_path: Path,
) -> None:
    client.delete_registered_model(version.name)
    if made_again:
        remade = version_of_logged_model(client, version.source, version.name)
        assert remade.version == version.version
    wanted = publication(tmp_path, Verdict.PROMOTE)
    before = snapshot(client, version.name, (wanted.job,))
    assert before.runs == ()
    for act in (
        lambda: registry.promote(version, alias="champion", publication=wanted),
        lambda: registry.block(version, alias="champion", publication=wanted),
        lambda: registry.hold(version, publication=wanted),
        lambda: registry.register_derivative(version, tmp_path, publication=wanted),
    ):
        with pytest.raises(VersionChangedError, match=str(version)):
            act()
        assert snapshot(client, version.name, (wanted.job,)) == before


def test_the_alias_does_not_move_to_a_version_made_while_the_evidence_was_uploaded(
    mlflow_server: EmbeddedServer, client: MlflowClient, version: VersionIdentity, logged_source: str, tmp_path: Path
) -> None:
    def make_again() -> None:
        client.delete_registered_model(version.name)
        version_of_logged_model(client, logged_source, version.name)

    registry = MlflowRegistry(
        mlflow_server.uri, client=WatchingClient(mlflow_server.uri, {"log_artifacts": make_again})
    )
    with pytest.raises(VersionChangedError, match="made again"):
        registry.promote(version, alias="champion", publication=publication(tmp_path, Verdict.PROMOTE))
    assert aliases(client, version.name) == {}
    assert client.get_model_version(version.name, "1").tags == {}


def test_nothing_is_published_without_evidence(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    bare = replace(publication(tmp_path, Verdict.PROMOTE), evidence=tmp_path / "none")
    with pytest.raises(EvidenceError, match="none: no evidence"):
        registry.promote(version, alias="champion", publication=bare)
    assert aliases(client, version.name) == {}


def test_a_reason_of_any_length_and_any_characters_fits_the_tag(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    reasons = ("tensor a\x00b\n\ud800c says 'so'", "é" * 20_000)
    registry.hold(version, publication=replace(publication(tmp_path, Verdict.HOLD), reasons=reasons))
    tag = client.get_model_version(version.name, "1").tags["quantguard.reason"]
    assert tag.startswith("tensor a b ?c says 'so' | éé")
    assert len(tag) == 5000
    assert tag.endswith("…")


def test_a_job_that_could_end_the_quotes_of_a_search_is_refused(
    registry: MlflowRegistry, version: VersionIdentity, tmp_path: Path
) -> None:
    wanted = replace(publication(tmp_path, Verdict.HOLD), job="x' OR tags.a = 'y")
    with pytest.raises(RegistryError, match="cannot be searched for"):
        registry.hold(version, publication=wanted)


def test_an_experiment_that_sends_its_files_elsewhere_gets_none(
    registry: MlflowRegistry,
    client: MlflowClient,
    version: VersionIdentity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Another name than the gate's own, so that the other tests of this server keep theirs.
    name = fresh_name("squatted")
    client.create_experiment(name, artifact_location="s3://stranger/bucket")
    monkeypatch.setattr(records, "EXPERIMENT", name)
    wanted = publication(tmp_path, Verdict.HOLD)
    with pytest.raises(RegistryError, match="outside the registry's own artifact store"):
        registry.hold(version, publication=wanted)
    assert client.get_model_version(version.name, "1").tags == {}


def test_an_older_job_does_not_take_the_alias_back(
    registry: MlflowRegistry, client: MlflowClient, version: VersionIdentity, tmp_path: Path
) -> None:
    second = client.create_model_version(
        version.name, version.source, model_id=version.source.removeprefix("models:/"), await_creation_for=0
    )
    other = replace(version, version=str(second.version), created=second.creation_timestamp)
    first = publication(tmp_path, Verdict.PROMOTE)
    registry.promote(version, alias="champion", publication=first)
    registry.promote(other, alias="champion", publication=publication(tmp_path, Verdict.PROMOTE))
    again = registry.promote(version, alias="champion", publication=first)
    assert again.events[-1] == "alias champion was moved to 2 since: not moved back"
    assert aliases(client, version.name) == {"champion": "2"}
