"""A model whose files try every trick: nothing of it is executed, neither on the way in nor in the sealed room."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from action import containers
from action.job import make_job as make_launch
from action.log import Log
from action.rooms import MEASURED, Machine, make_room
from quantguard.checkpoint.admit import REFUSED_FROM
from quantguard.checkpoint.digest import model_digest
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.model import VersionIdentity
from quantguard.evidence.records import write_record
from quantguard.gate.work import Fetched, Job, Work, make_job
from quantguard.policy.load import load_policy
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.register import register_directory
from tests.containers.conftest import NewRunner
from tests.containers.engine import Engine
from tests.containers.hostile import TRICKS, fires
from tests.containers.runner import USER, Runner
from tests.registry.world import fresh_name
from tests.stories import Kind, write_story

INSIDE = Path("/tmp")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_story(Kind.CLEAN, tmp_path_factory.mktemp("hostile") / "clean")


def planted(name: str, model: Path, folder: Path, markers: Path) -> Path:
    copy = shutil.copytree(model, folder / name)
    TRICKS[name].plant(copy, markers / f"FIRED-{name}")
    return copy


@pytest.mark.parametrize("name", TRICKS)
def test_the_trick_works_on_who_falls_for_it(name: str, model: Path, tmp_path: Path) -> None:
    copy = planted(name, model, tmp_path, tmp_path)
    assert fires(TRICKS[name], copy, tmp_path / f"FIRED-{name}")


@pytest.mark.parametrize("name", TRICKS)
def test_it_does_not_work_in_the_sealed_room(
    name: str, model: Path, watched: NewRunner, engine: Engine, tmp_path: Path
) -> None:
    """With the files that fetch would have refused: whatever got past it, assess does not execute it."""
    runner = watched(Kind.CLEAN, work="qg")
    copy = planted(name, model, tmp_path, INSIDE)
    smuggled(runner, copy)
    code = assessed(runner, engine)
    told = json.loads((runner.workspace / "qg" / "report" / "witness-assess.json").read_text())
    assert told["markers"] == []
    assert told["reached"] is False
    assert code in (0, 1, 2)
    assert not list(Path("/tmp").glob("FIRED-*"))  # nor on the host


def smuggled(runner: Runner, model: Path) -> None:
    """A work directory as after fetch, with a model that fetch did not look at."""
    policy = load_policy(runner.workspace / "policies" / "policy.yaml")
    asked = make_job(runner.inputs["model"], policy, seed=0)
    work = Work(runner.workspace / "qg", asked, policy)
    for name in MEASURED:
        (work.root / name).mkdir(parents=True)
    shutil.copytree(model, work.model)
    fetched = Fetched(VersionIdentity("hostile", "1", "models:/m-0", 0), model_digest(work.model))
    write_record(work.job, "job", Job, asked, inputs=asked.digest)
    write_record(work.fetched, "fetched", Fetched, fetched, inputs=asked.digest)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", str(work.root)], check=True)


def assessed(runner: Runner, engine: Engine) -> int:
    """Run the sealed room alone, with the launcher's own options; its exit code."""
    given = {f"QUANTGUARD_{name.upper()}": value for name, value in runner.inputs.items()}
    job = make_launch(runner.environment() | given | {"QUANTGUARD_IMAGE": runner.image})
    machine = Machine(f"{USER}:{USER}", 4 << 30, 0)
    files = tuple(runner.workspace / "policies" / n for n in ("policy.yaml", "probes.jsonl", "calibration.jsonl"))
    return containers.run(engine.client, make_room("assess", job, machine, files), job, machine, Log())


@pytest.mark.parametrize("name", TRICKS)
def test_every_trick_is_refused_on_the_way_in(name: str, model: Path, tmp_path: Path) -> None:
    found = unsafe_files(planted(name, model, tmp_path, INSIDE))
    assert any(finding.severity.at_least(REFUSED_FROM) for finding in found)


def test_a_registered_version_with_all_of_them_fires_none_in_any_room(
    model: Path, watched: NewRunner, mlflow_server: EmbeddedServer, tmp_path: Path
) -> None:
    copy = shutil.copytree(model, tmp_path / "all")
    for name, trick in TRICKS.items():
        trick.plant(copy, INSIDE / f"FIRED-{name}")
    runner = watched(model=str(register_directory(mlflow_server.uri, fresh_name("hostile"), copy)))
    ran = runner.run()
    told = {path.stem: json.loads(path.read_text())["markers"] for path in runner.work.rglob("witness-*.json")}
    assert list(told.values()) == [[]], ran.log
    assert (ran.code, ran.outputs["verdict"]) == (1, "BLOCK"), ran.log
    assert "holds what must never be loaded" in ran.summary
