"""kill -9 at each boundary, then the same command again: the same end, and the alias moves once."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.evidence.records import read_record
from quantguard.gate.work import PublishedRecord
from quantguard.registry.embedded import EmbeddedServer
from tests.command import Running, processes_naming, quantguard
from tests.gate.jobs import GatedOnce, Job, NewJob
from tests.gate.picture import picture
from tests.gate.proxy import Asked, Proxy
from tests.stories import Kind

FETCH = ("model", "fetched.json")  # downloaded and not yet looked at; over
ASSESS = (
    "evidence/scan.json",
    "evidence/measurements-original.json",
    "hardened/model",  # written, and not yet compared with the real quantizer
    "evidence/hardening.json",
    "evidence/scan-hardened.json",
    "evidence/measurements-hardened.json",
    "evidence/outcome.json",
)
ALIAS = ("POST", "/mlflow/registered-models/alias")
PUBLISH = (
    ("POST", "/mlflow/runs/create"),
    ("PUT", "/model.safetensors"),
    ("POST", "/mlflow/model-versions/create"),
    ALIAS,
    ("POST", "/mlflow/model-versions/set-tag"),  # of the original, which is blocked last
)


def is_request(asked: Asked, wanted: tuple[str, str]) -> bool:
    return asked[0] == wanted[0] and asked[1].partition("?")[0].endswith(wanted[1])


def test_a_job_killed_at_every_boundary_ends_as_one_that_was_not(
    gated: GatedOnce, new_job: NewJob, mlflow_server: EmbeddedServer, client: MlflowClient, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with Proxy(mlflow_server.uri) as proxy:
        job = replace(new_job(Kind.ATTACKED, tmp_path / "work"), uri=proxy.uri)
        for file in FETCH:
            kill_when(file, job, (), log)
        for file in ASSESS:
            kill_when(file, job, ("--stage", "assess"), log)
        for request in PUBLISH:
            kill_at(request, proxy, job, log)
        ran = quantguard(*job.command)
        assert ran.code == 0, ran.err
        moves = [asked for asked in proxy.asked if is_request(asked, ALIAS)]
        assert job.state(client) == gated(Kind.ATTACKED).job.state(client)
    assert len(moves) == 1
    published = read_record(job.work / "published.json", "published", PublishedRecord)
    assert published is not None
    assert "alias champion already at 2: not moved" in published.events
    assert list(tmp_path.rglob("*.partial")) == []


def kill_when(file: str, job: Job, stage: tuple[str, ...], log: Path) -> None:
    """Run, and kill it as soon as `file` is in the work directory."""
    with Running(*job.command, *stage, log=log) as running:
        appeared = running.wait_for((job.work / file).exists)
        running.kill()
        assert (appeared, running.wait()) == (True, -9), f"{file}: {log.read_text()}"


def kill_at(request: tuple[str, str], proxy: Proxy, job: Job, log: Path) -> None:
    """Publish, and kill it after the registry did what `request` asks for and before it was told."""
    with Running(*job.command, "--stage", "publish", log=log) as running:
        proxy.on_answer = lambda asked: running.kill() if is_request(asked, request) else None
        assert running.wait() == -9, f"{request}: {proxy.asked} {log.read_text()}"
    proxy.on_answer = lambda _: None


def test_a_stage_that_is_killed_is_named_and_nothing_is_published(
    new_job: NewJob, client: MlflowClient, tmp_path: Path
) -> None:
    """As the system does where memory is short."""
    job = new_job(Kind.CLEAN, tmp_path / "work")
    before = picture(client)
    with Running(*job.command, log=tmp_path / "log") as running:
        assert running.wait_for((job.work / "evidence" / "scan.json").exists)
        (assess,) = [pid for pid, line in processes_naming(job.work).items() if "--stage assess" in line]
        os.kill(assess, signal.SIGKILL)
        assert running.wait() == 2
    assert "the assess stage was ended by SIGKILL" in (tmp_path / "log").read_text()
    assert picture(client) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_gate_that_is_asked_to_stop_takes_its_stages_with_it(
    number: signal.Signals, models: Mapping[Kind, Path], policy_file: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    command = ("gate", models[Kind.CLEAN], "--policy", policy_file, "--work", work)
    with Running(*command, log=tmp_path / "log") as running:
        assert running.wait_for((work / "evidence" / "policy.yaml").exists)
        running.send(number)
        assert running.wait() == 130
        assert processes_naming(work) == {}
    assert "run the same command again to go on" in (tmp_path / "log").read_text()


def test_a_finished_job_run_again_changes_nothing(gated: GatedOnce, client: MlflowClient) -> None:
    job = gated(Kind.ATTACKED).job
    before = picture(client)
    assert quantguard(*job.command).code == 0
    assert picture(client) == before
