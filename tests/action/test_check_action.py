"""The composite of the pull-request check, with the real check and a Python that is there already."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFEST = yaml.safe_load((ROOT / "action" / "check" / "action.yml").read_text(encoding="utf-8"))
STRICT = "schema: quantguard.manifest/1\nlooser: block\n"
LOOSER = "schema: quantguard.manifest/1\nlooser: warn\n"
# In the place of bootstrap.sh: the Python of this test run, and what it was started with.
STAND_IN = """#!/bin/sh
printf '%s\\n' "$@" > "$RUNNER_TEMP/arguments"
env > "$RUNNER_TEMP/environment"
shift
exec "$TEST_PYTHON" "$@"
"""


@dataclass(frozen=True)
class Job:
    root: Path

    @property
    def workspace(self) -> Path:
        return self.root / "work space"

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=self.workspace, check=True, capture_output=True)

    def commit(self, manifest: str) -> None:
        (self.workspace / "quantguard.yaml").write_text(manifest, encoding="utf-8")
        self.git("add", ".")
        self.git("commit", "-m", "x", "--allow-empty")

    def check(self, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run the step as the composite does: every input is a variable, empty where it is not given."""
        given = {f"QUANTGUARD_{name.replace('-', '_').upper()}": "" for name in MANIFEST["inputs"]}
        given |= {f"QUANTGUARD_{name.upper()}": value for name, value in inputs.items()}
        files = {name: str(self.root / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "GITHUB_", "PYTEST_"))
        }
        return subprocess.run(
            ["bash", str(self.root / "action" / "check" / "check.sh")],
            cwd=self.workspace,
            env={**kept, **given, **files, "RUNNER_TEMP": str(self.root / "te mp"), "TEST_PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def outputs(self) -> dict[str, str]:
        lines = (self.root / "GITHUB_OUTPUT").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A checkout whose branch made the manifest's own rule looser."""
    job = Job(tmp_path)
    for folder in (tmp_path / "action" / "check", tmp_path / "te mp", job.workspace):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "action" / "check" / "check.sh", tmp_path / "action" / "check")
    (tmp_path / "action" / "bootstrap.sh").write_text(STAND_IN, encoding="utf-8")
    job.git("init", "-b", "main", ".")
    job.commit(STRICT)
    job.git("checkout", "-b", "change")
    job.commit(LOOSER)
    return job


def test_a_looser_limit_fails_the_job_and_says_so_everywhere(job: Job) -> None:
    done = job.check()
    assert done.returncode == 1, done.stderr
    report = Path(job.outputs["report"])
    assert job.outputs == {"exit-code": "1", "report": str(report)}
    assert {"report.json", "report.md", "report.sarif"} <= {path.name for path in report.iterdir()}
    assert (job.root / "GITHUB_STEP_SUMMARY").read_text(encoding="utf-8") == (report / "report.md").read_text("utf-8")
    assert "::error file=quantguard.yaml,line=2" in done.stdout


def test_a_looser_limit_that_is_allowed_passes(job: Job) -> None:
    done = job.check(allow_looser="true")
    assert (done.returncode, job.outputs["exit-code"]) == (0, "0"), done.stderr
    assert "::warning file=quantguard.yaml,line=2" in done.stdout


@pytest.mark.parametrize("value", ["false", ""])
def test_only_true_allows(job: Job, value: str) -> None:
    assert job.check(allow_looser=value).returncode == 1


def test_what_is_neither_true_nor_false_is_refused(job: Job) -> None:
    done = job.check(allow_looser="yes")
    assert (done.returncode, job.outputs) == (4, {"exit-code": "4"})
    assert done.stdout.startswith("::error title=QuantGuard::the input allow-looser")


@pytest.mark.parametrize(
    ("token", "variables"),
    [
        ("sesame", {"MLFLOW_TRACKING_TOKEN=sesame"}),
        ("u:se:same", {"MLFLOW_TRACKING_USERNAME=u", "MLFLOW_TRACKING_PASSWORD=se:same"}),
    ],
)
def test_the_token_travels_in_the_environment_only(job: Job, token: str, variables: set[str]) -> None:
    done = job.check(token=token)
    told = (job.root / "te mp" / "environment").read_text(encoding="utf-8").splitlines()
    assert {line for line in told if "same" in line or line.startswith("MLFLOW")} == variables
    assert "same" not in (job.root / "te mp" / "arguments").read_text(encoding="utf-8")
    shown = [line for line in done.stdout.splitlines() if not line.startswith("::add-mask::")]
    assert "same" not in "\n".join(shown) + done.stderr


def test_every_input_is_one_that_the_check_takes(job: Job) -> None:
    done = job.check(base="main", manifest="quantguard.yaml", tracking_uri="http://127.0.0.1:9")
    assert done.returncode == 1, done.stderr
    told = (job.root / "te mp" / "arguments").read_text(encoding="utf-8").splitlines()
    pairs = dict(pairwise(told))
    assert pairs["--base"] == "main"
    assert pairs["--manifest"] == "quantguard.yaml"
    assert pairs["--tracking-uri"] == "http://127.0.0.1:9"


def test_the_inputs_reach_the_script_under_their_own_names() -> None:
    (prepare, check) = MANIFEST["runs"]["steps"]
    assert check["env"] == {
        f"QUANTGUARD_{name.replace('-', '_').upper()}": f"${{{{ inputs.{name} }}}}" for name in MANIFEST["inputs"]
    }
    assert "env" not in prepare, "pip never runs beside the token"
    assert MANIFEST["outputs"]["exit-code"]["value"] == "${{ steps.check.outputs.exit-code || '2' }}"
