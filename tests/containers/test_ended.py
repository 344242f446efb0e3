"""However a run is ended, nothing of it stays, nothing is promoted by half, and the same run again ends well."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from mlflow import MlflowClient

from action.rooms import STAGES
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.register import register_directory
from tests.containers.conftest import NewRunner
from tests.containers.engine import Engine
from tests.containers.runner import USER, Runner, kill, wait_for
from tests.containers.test_gate import require_tidy
from tests.registry.world import fresh_name
from tests.stories import Kind, write_story

GRACE = 7.5  # seconds that GitHub's runner waits after SIGINT before it sends SIGTERM; then 2.5 until it kills


def running(engine: Engine, stage: str) -> bool:
    """Whether the container of `stage` runs."""
    found = engine.client.containers.list(filters={"label": "quantguard.launcher"}, ignore_removed=True)
    return any(stage in container.attrs["Config"]["Cmd"] for container in found)


def begun(runner: Runner, stage: str) -> subprocess.Popen[str]:
    """The action, as far as the container of `stage`."""
    runner.before()
    process = runner.start(runner.step("gate"))
    wait_for(lambda: running(runner.engine, stage), process)
    return process


def state(runner: Runner, client: MlflowClient) -> tuple[list[str], dict[str, str]]:
    version = client.get_model_version(runner.inputs["model"].split("/")[1], "1")
    return list(version.aliases), dict(version.tags)


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_killed_launcher_leaves_is_swept_and_a_rerun_ends_well(
    stage: str, new_runner: NewRunner, client: MlflowClient, engine: Engine
) -> None:
    runner = new_runner(Kind.CLEAN)
    process = begun(runner, stage)
    kill(process)
    assert len(engine.containers()) == 1  # nobody was there to remove it
    ran = runner.after(-9, "")
    assert engine.containers() == []
    assert ran.outputs == {}  # action.yml makes HOLD of that
    assert not list(runner.work.glob("*.partial*"))
    assert not (runner.work / "model").exists()
    if stage != "publish":
        assert state(runner, client) == ([], {})
    ran = runner.run()
    assert ran.code == 0, ran.log
    assert state(runner, client)[0] == ["champion"]
    require_tidy(runner, engine)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_a_cancelled_run_tidies_up_within_the_runners_patience(
    stage: str, number: signal.Signals, new_runner: NewRunner, client: MlflowClient, engine: Engine
) -> None:
    runner = new_runner(Kind.CLEAN)
    process = begun(runner, stage)
    started = monotonic()
    process.send_signal(number)
    log, _ = process.communicate(timeout=60)
    assert monotonic() - started < GRACE
    assert engine.containers() == []
    ran = runner.after(process.returncode, log)
    assert (ran.code, ran.outputs["verdict"]) == (2, "HOLD"), log
    assert f"ended by {number.name}" in ran.summary
    if stage != "publish":
        assert state(runner, client) == ([], {})
    require_tidy(runner, engine)


def test_a_run_that_takes_too_long_is_ended(new_runner: NewRunner, client: MlflowClient, engine: Engine) -> None:
    runner = new_runner(Kind.CLEAN, timeout="0.05")
    ran = runner.run()
    assert (ran.code, ran.outputs["verdict"]) == (2, "HOLD")
    assert "not finished within 0.05 minutes: raise the input timeout" in ran.log
    assert state(runner, client) == ([], {})
    require_tidy(runner, engine)


def test_a_launcher_that_lives_keeps_its_container(new_runner: NewRunner, engine: Engine) -> None:
    """Two jobs on one runner: the sweep of one does not touch the other."""
    first = new_runner(Kind.CLEAN)
    process = begun(first, "assess")
    second = new_runner(Kind.MALICIOUS)
    assert second.run().code == 1
    log, _ = process.communicate(timeout=300)
    assert process.returncode == 0, log


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system of 96 MiB for a work directory."""
    place = home / "small"
    place.mkdir()
    options = f"size=96m,uid={USER},gid={USER},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)
    place.rmdir()


def test_too_little_disk_is_told_before_anything_is_fetched(new_runner: NewRunner, small_disk: Path) -> None:
    runner = new_runner(Kind.CLEAN, work=str(small_disk), disk="1")
    ran = runner.run()
    assert (ran.code, ran.outputs["verdict"]) == (2, "HOLD")
    assert "0.1 GiB are free, and 1.0 are needed (free space there, or change the input disk)" in ran.log
    assert "::group::" not in ran.log
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("stage", ["assess", "publish"])
def test_a_disk_that_fills_up_midway_holds_and_leaves_nothing_half_written(
    stage: str, new_runner: NewRunner, small_disk: Path, client: MlflowClient, engine: Engine
) -> None:
    runner = new_runner(Kind.ATTACKED, work=str(small_disk), disk="0.01")
    process = begun(runner, stage)
    filler = small_disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], check=False, capture_output=True)
    log, _ = process.communicate(timeout=300)
    ran = runner.after(process.returncode, log)
    assert (ran.code, ran.outputs["verdict"]) == (2, "HOLD"), log
    assert "free space there" in ran.summary, ran.summary
    assert state(runner, client)[0] == []
    assert engine.containers() == []
    assert not [path for path in small_disk.rglob("*") if "partial" in path.name]
    filler.unlink()
    ran = runner.run()
    assert ran.code == 0, ran.log


def test_a_runner_without_enough_memory_is_told_before_anything_is_fetched(new_runner: NewRunner) -> None:
    ran = new_runner(Kind.CLEAN, memory="9999g").run()
    assert (ran.code, ran.outputs["verdict"]) == (2, "HOLD")
    assert "of memory are available, and 9999.0 are needed" in ran.log
    assert "::group::" not in ran.log


def test_a_policy_that_requires_a_gpu_is_told_before_anything_is_fetched(
    new_runner: NewRunner, tiny_policy: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    for path in tiny_policy.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with (folder / "policy.yaml").open("a") as file:
        file.write("requires: {gpu: true}\n")
    ran = new_runner(Kind.CLEAN, policies=folder).run()
    assert (ran.code, ran.outputs["verdict"]) == (2, "HOLD")
    assert "the policy requires a GPU, and this runner has none" in ran.log
    assert "::group::" not in ran.log


def test_a_model_that_would_fill_the_memory_is_ended_alone(
    new_runner: NewRunner, mlflow_server: EmbeddedServer, tmp_path: Path, engine: Engine
) -> None:
    """A config may claim any size: the loader allocates it before it looks at the weights."""
    model = write_story(Kind.CLEAN, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 40_000_000}))
    identity = register_directory(mlflow_server.uri, fresh_name("huge"), model)
    ran = new_runner(model=str(identity), memory="2g").run()
    assert (ran.code, ran.outputs["verdict"]) == (2, "HOLD"), ran.log
    assert "the assess container was killed: where it needed more than its 2.0 GiB, raise" in ran.summary
    assert engine.containers() == []
