"""`python -P -m action run` on runners that lack something: one line, the outputs, and nothing started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from action.launch import claim
from tests.action.test_job import IMAGE
from tests.test_house import ROOT

POLICY = "schema: quantguard.policy/1\nrequires: {gpu: true}\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(POLICY)
    return tmp_path


def action(verb: str, workspace: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    given = {"MODEL": "models:/a/1", "POLICY": "p.yaml", "IMAGE": IMAGE, "READ_TOKEN": "s3cret", **inputs}
    environment = {
        **{f"QUANTGUARD_{name}": value for name, value in given.items()},
        "PYTHONPATH": str(ROOT),
        "PATH": "/usr/bin:/bin",
        "GITHUB_WORKSPACE": str(workspace),
        "RUNNER_TEMP": str(workspace / "temp"),
        "GITHUB_OUTPUT": str(workspace / "output"),
        "GITHUB_STEP_SUMMARY": str(workspace / "summary"),
        "DOCKER_HOST": f"unix://{workspace}/no.sock",
    }
    command = [sys.executable, "-P", "-m", "action", verb]
    return subprocess.run(command, env=environment, cwd=workspace, capture_output=True, text=True, check=False)


def outputs(workspace: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (workspace / "output").read_text().splitlines())


@pytest.mark.parametrize(
    ("inputs", "code", "said"),
    [
        ({}, 2, "no Docker answers on this runner (install Docker Engine"),
        ({"MODEL": ""}, 4, "the input model is missing"),
        ({"POLICY": "other.yaml"}, 4, "cannot be read: No such file or directory"),
        ({"POLICY": "/etc/hostname"}, 4, ""),
        ({"IMAGE": "quantguard:latest"}, 4, "which names no digest"),
    ],
)
def test_what_is_missing_is_one_line_and_holds(inputs: dict[str, str], code: int, said: str, workspace: Path) -> None:
    ran = action("run", workspace, **inputs)
    errors = [line for line in ran.stdout.splitlines() if line.startswith("::error")]
    assert ran.returncode == code, ran.stderr
    assert len(errors) == 1
    assert said in errors[0]
    assert outputs(workspace) == {
        "verdict": "HOLD", "exit-code": str(code), "evidence": "", "bundle": "", "report": "", "hardened-version": "",
    }  # fmt: skip
    assert (workspace / "summary").read_text().startswith("# HOLD: ")
    assert ran.stderr == ""
    assert not (workspace / "temp").exists()


def test_secrets_are_masked_before_anything_else_and_never_written(workspace: Path) -> None:
    ran = action("run", workspace, MODEL="models:/s3cret/1", NETWORK="s3cret:x")
    assert ran.returncode == 4
    assert "s3cret" not in (workspace / "summary").read_text() + (workspace / "output").read_text()


def test_two_runs_do_not_share_a_directory(workspace: Path) -> None:
    held = workspace / "work"
    (held / "model").mkdir(parents=True)
    (held / "model.partial").mkdir()
    with claim(held):
        for verb, code in (("run", 2), ("sweep", 0)):
            ran = action(verb, workspace, WORK=str(held))
            assert (ran.returncode, ran.stderr) == (code, "")
            assert "another run is at work here (wait until it is over)" in ran.stdout
            assert (held / "model.partial").exists()
    assert action("sweep", workspace, WORK=str(held)).returncode == 0
    assert not (held / "model.partial").exists()


def test_sweeping_without_docker_is_no_failure(workspace: Path) -> None:
    ran = action("sweep", workspace)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_workspace_cannot_replace_what_the_launcher_imports(workspace: Path) -> None:
    for name in ("docker.py", "yaml.py", "action.py", "sitecustomize.py", "json.py"):
        (workspace / name).write_text("raise SystemExit('taken over')\n")
    ran = action("run", workspace)
    assert "no Docker answers" in ran.stdout
    assert "taken over" not in ran.stdout + ran.stderr


def test_an_unknown_verb_is_usage(workspace: Path) -> None:
    ran = action("gate", workspace)
    assert (ran.returncode, ran.stdout) == (4, "")
    assert ran.stderr.startswith("usage:")
