"""The job-container form: the step of docs/workflows/job-container.yml, in a container as GitHub's runner makes one."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from tests.containers.conftest import NewRunner
from tests.containers.engine import Engine
from tests.containers.runner import USER, Runner
from tests.stories import Kind
from tests.test_house import ROOT

JOB: dict[str, Any] = yaml.safe_load((ROOT / "docs/workflows/job-container.yml").read_text())["jobs"]["gate"]


@contextmanager
def job_container(runner: Runner, engine: Engine) -> Iterator[str]:
    """What the runner starts before the first step: the image, asleep, with the workspace and its own files mounted."""
    asked = shlex.split(JOB["container"]["options"])
    gpus = asked.index("--gpus")  # this machine has none
    options = asked[:gpus] + asked[gpus + 2 :]
    mounts = [f"{runner.workspace}:/__w/repo", f"{runner.temp}:/__w/_temp"]
    container = engine.podman(
        "create", "--network", "host", "--label", "quantguard.launcher=job-container", "--workdir", "/__w/repo",
        *options, *(word for mount in mounts for word in ("--volume", mount)),
        "--entrypoint", "tail", runner.image, "-f", "/dev/null",
    ).strip()  # fmt: skip
    engine.podman("start", container)
    try:
        yield container
    finally:
        engine.podman("rm", "--force", "--time", "0", container)


def step(runner: Runner, engine: Engine, container: str) -> tuple[int, str]:
    """The gate's step, as the runner runs it there; its exit code and its log."""
    script = next(step["run"] for step in JOB["steps"] if "quantguard gate" in step.get("run", ""))
    # This machine has no GPU and a policy of its own.
    script = script.replace("--device cuda", "--device cpu").replace("policies/standard.yaml", "policies/policy.yaml")
    (runner.temp / "job.sh").write_text(script)
    environment = {
        "MODEL": runner.inputs["model"],
        "MLFLOW_TRACKING_URI": runner.uri,
        "MLFLOW_TRACKING_TOKEN": "WRITE-SECRET",
        "GITHUB_STEP_SUMMARY": "/__w/_temp/summary",
    }
    given = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    command = [
        "podman",
        "exec",
        *given,
        container,
        "bash",
        "--noprofile",
        "--norc",
        "-eo",
        "pipefail",
        "/__w/_temp/job.sh",
    ]
    ran = subprocess.run(command, env=engine.environment(), capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize(("kind", "code"), [(Kind.CLEAN, 0), (Kind.MALICIOUS, 1)])
def test_the_documented_step_gates_inside_the_image(
    kind: Kind, code: int, new_runner: NewRunner, engine: Engine, client: MlflowClient
) -> None:
    runner = new_runner(kind)
    (runner.temp / "summary").unlink(missing_ok=True)
    with job_container(runner, engine) as container:
        ended, log = step(runner, engine, container)
    assert ended == code, log
    version = client.get_model_version(runner.inputs["model"].split("/")[1], "1")
    assert version.aliases == (["champion"] if code == 0 else [])
    assert (runner.temp / "summary").read_text().startswith("# PROMOTE" if code == 0 else "# BLOCK")
    work = runner.workspace / "quantguard-work"
    assert {path.stat().st_uid for path in work.rglob("*")} == {USER}
    # It says what this form does not give: the engine's filter keeps a process from making a network of its own.
    network = json.loads((work / "evidence" / "outcome.json").read_text())["body"]["network"]
    assert network in ("none", "reachable")
    assert ("does not let a process give up the network" in log) is (network == "reachable")
    assert "WRITE-SECRET" not in "".join(path.read_text() for path in Path(work).rglob("*.json"))
