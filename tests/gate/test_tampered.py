"""What passes between the rooms is checked again by the next: changed bytes, foreign evidence, forged outcomes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from quantguard.core.errors import EvidenceError, StaleWorkError, UsageError
from quantguard.evidence.records import canonical_json
from quantguard.gate.assess import Room, assess
from quantguard.gate.fetch import fetch
from quantguard.gate.publish import publish
from quantguard.gate.work import Work, make_job
from quantguard.policy.load import load_policy
from quantguard.registry.directory import DirectoryRegistry
from quantguard.registry.mlflow_registry import MlflowRegistry
from tests.gate.jobs import GatedOnce, Job, NewJob
from tests.gate.picture import picture
from tests.registry.world import read_files
from tests.stories import POLICY, Kind, write_policy


def copied(job: Job, root: Path) -> Work:
    """A finished job's work directory, to be tampered with."""
    shutil.copytree(job.work, root)
    return job.opened(root)


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(file.read_bytes())
    change(document["body"])
    file.write_bytes(canonical_json(document) + b"\n")


def require_refused(work: Work, job: Job, client: MlflowClient, words: str) -> None:
    before = picture(client)
    with pytest.raises(EvidenceError, match=words) as caught:
        publish(work, MlflowRegistry(job.uri))
    assert caught.value.remedy
    assert picture(client) == before
    assert not work.published.exists()  # what an earlier run did is not told as this one's


def test_weights_changed_after_they_were_fetched_are_neither_assessed_nor_published(
    gated: GatedOnce, client: MlflowClient, tmp_path: Path
) -> None:
    job = gated(Kind.CLEAN).job
    work = copied(job, tmp_path / "work")
    flip_a_byte(work.model / "model.safetensors")
    with pytest.raises(EvidenceError, match="the bytes changed"):
        assess(work, Room("cpu", "none"))
    require_refused(work, job, client, "the bytes changed")


def test_hardened_weights_changed_after_they_were_measured_are_not_published(
    gated: GatedOnce, client: MlflowClient, tmp_path: Path
) -> None:
    job = gated(Kind.ATTACKED).job
    work = copied(job, tmp_path / "work")
    flip_a_byte(work.hardened / "model.safetensors")
    require_refused(work, job, client, "not the checkpoint that was measured")


@pytest.mark.parametrize("lost", ["hardened/model", "evidence/hardening.json"])
def test_a_hardened_checkpoint_that_is_lost_is_not_published(
    lost: str, gated: GatedOnce, client: MlflowClient, tmp_path: Path
) -> None:
    job = gated(Kind.ATTACKED).job
    work = copied(job, tmp_path / "work")
    path = work.root / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    require_refused(work, job, client, "not the checkpoint that was measured")


@pytest.mark.parametrize("name", ["measurements-original", "measurements-hardened"])
def test_evidence_of_other_bytes_is_refused(name: str, gated: GatedOnce, client: MlflowClient, tmp_path: Path) -> None:
    job = gated(Kind.ATTACKED).job
    work = copied(job, tmp_path / "work")
    other = "sha256:" + "0" * 64
    rewrite(work.evidence / f"{name}.json", lambda body: body.update(model_digest=other))
    require_refused(work, job, client, "of other bytes")


@pytest.mark.parametrize(("name", "words"), [("scan", "the scan's evidence is gone"), ("outcome", "not been assessed")])
def test_nothing_is_published_before_assess_has_finished(
    name: str, words: str, gated: GatedOnce, client: MlflowClient, tmp_path: Path
) -> None:
    job = gated(Kind.CLEAN).job
    work = copied(job, tmp_path / "work")
    (work.evidence / f"{name}.json").unlink()
    require_refused(work, job, client, words)


def assessed_anew(gated: GatedOnce, new_job: NewJob, root: Path) -> tuple[Job, Work]:
    """A malicious version that has been assessed and not yet published."""
    job = new_job(Kind.MALICIOUS, root)
    work = job.opened()
    fetch(work, MlflowRegistry(job.uri))
    gated(Kind.MALICIOUS).lend_evidence(job)
    return job, work


def test_measurements_that_are_missing_hold_the_model(gated: GatedOnce, new_job: NewJob, tmp_path: Path) -> None:
    job, work = assessed_anew(gated, new_job, tmp_path)
    (work.evidence / "measurements-original.json").unlink()
    publish(work, MlflowRegistry(job.uri))
    (version,) = job.versions()
    assert (version.tag("quantguard.verdict"), version.aliases) == ("HOLD", ())


def promote(body: dict[str, Any]) -> None:
    """As if everything had passed."""
    for decision in filter(None, body["outcome"].values()):
        decision.update(verdict="PROMOTE", reasons=[])


def test_a_forged_outcome_promotes_nothing(gated: GatedOnce, new_job: NewJob, tmp_path: Path) -> None:
    job, work = assessed_anew(gated, new_job, tmp_path)
    rewrite(work.evidence / "outcome.json", promote)
    record = publish(work, MlflowRegistry(job.uri))
    (version,) = job.versions()
    assert (version.tag("quantguard.verdict"), version.aliases) == ("BLOCK", ())
    assert "tagged BLOCK" in record.events[0]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": "quantguard.outcome/1", "inputs": "", "body": {"verdict": "PROMOTE"}}']
)
def test_evidence_that_is_none_is_refused(
    content: bytes, gated: GatedOnce, client: MlflowClient, tmp_path: Path
) -> None:
    job = gated(Kind.CLEAN).job
    work = copied(job, tmp_path / "work")
    (work.evidence / "outcome.json").write_bytes(content)
    before = picture(client)
    with pytest.raises(EvidenceError):
        publish(work, MlflowRegistry(job.uri))
    assert picture(client) == before


def test_a_work_directory_serves_one_job_only(models: Mapping[Kind, Path], tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path / "policy"))
    fetch(Work(tmp_path / "work", make_job(str(models[Kind.CLEAN]), policy, seed=0), policy), DirectoryRegistry())
    laxer = load_policy(write_policy(tmp_path / "laxer", POLICY.replace("0.4", "0.9")))
    before = read_files(tmp_path / "work")
    for job, used in (
        (make_job(str(models[Kind.MALICIOUS]), policy, seed=0), policy),
        (make_job(str(models[Kind.CLEAN]), laxer, seed=0), laxer),
        (make_job(str(models[Kind.CLEAN]), policy, seed=1), policy),
    ):
        with pytest.raises(StaleWorkError, match="holds the work of"):
            fetch(Work(tmp_path / "work", job, used), DirectoryRegistry())
    assert read_files(tmp_path / "work") == before


def test_a_directory_that_holds_another_model_by_now_is_fetched_again(
    models: Mapping[Kind, Path], tmp_path: Path
) -> None:
    policy = load_policy(write_policy(tmp_path / "policy"))
    directory = tmp_path / "model"
    shutil.copytree(models[Kind.CLEAN], directory)
    work = Work(tmp_path / "work", make_job(str(directory), policy, seed=0), policy)
    first = fetch(work, DirectoryRegistry())
    work.evidence.mkdir()
    shutil.copytree(models[Kind.MALICIOUS], directory, dirs_exist_ok=True)
    assert fetch(work, DirectoryRegistry()).model_digest != first.model_digest
    assert read_files(work.model) == read_files(directory)
    assert not work.evidence.exists()


def test_a_work_directory_inside_the_model_is_refused_and_nothing_is_written_there(
    models: Mapping[Kind, Path], tmp_path: Path
) -> None:
    policy = load_policy(write_policy(tmp_path / "policy"))
    directory = tmp_path / "model"
    shutil.copytree(models[Kind.CLEAN], directory)
    with pytest.raises(UsageError, match="lies inside the model"):
        fetch(Work(directory / "work", make_job(str(directory), policy, seed=0), policy), DirectoryRegistry())
    assert read_files(directory) == read_files(models[Kind.CLEAN])
    assert not (directory / "work").exists()


def test_two_runs_do_not_work_in_one_directory_at_once(models: Mapping[Kind, Path], tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path / "policy"))
    work = Work(tmp_path / "work", make_job(str(models[Kind.CLEAN]), policy, seed=0), policy)
    with work.opened(), pytest.raises(StaleWorkError, match="another run is at work here"):
        fetch(work, DirectoryRegistry())
    fetch(work, DirectoryRegistry())


def test_fetching_again_restores_the_bytes_and_drops_what_was_made_from_others(
    models: Mapping[Kind, Path], tmp_path: Path
) -> None:
    policy = load_policy(write_policy(tmp_path / "policy"))
    work = Work(tmp_path / "work", make_job(str(models[Kind.CLEAN]), policy, seed=0), policy)
    first = fetch(work, DirectoryRegistry())
    work.evidence.mkdir()
    (work.evidence / "scan.json").write_text("{}")
    assert fetch(work, DirectoryRegistry()) == first
    assert (work.evidence / "scan.json").exists()
    flip_a_byte(work.model / "model.safetensors")
    assert fetch(work, DirectoryRegistry()) == first
    assert read_files(work.model) == read_files(models[Kind.CLEAN])
    assert not work.evidence.exists()
