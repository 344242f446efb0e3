"""A runner of GitHub's as far as a composite action can tell: its variables and files, its user, its order of steps."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import yaml

from action.job import make_job
from tests.containers.engine import Engine
from tests.test_house import ROOT

USER: Final = 1001  # as on GitHub's own runners
_RUNS = count(1)
_PATIENCE: Final = 400.0
_EXPRESSION = re.compile(r"\$\{\{\s*inputs\.([a-z-]+)\s*\}\}\Z")


@dataclass(frozen=True, slots=True)
class Ran:
    code: int  # of the step
    log: str
    summary: str
    outputs: dict[str, str]


@dataclass(slots=True)
class Runner:
    """One job on a self-hosted runner whose user is not root. `home` belongs to it."""

    home: Path
    engine: Engine
    image: str
    uri: str
    inputs: dict[str, str] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: str(next(_RUNS)))

    @property
    def workspace(self) -> Path:
        return self.home / "_work" / self.run_id

    @property
    def temp(self) -> Path:
        return self.home / "_temp"

    @property
    def action(self) -> Path:
        return self.home / "_actions"

    def check_out(self, policies: Path) -> None:
        """What actions/checkout and the download of the action leave: the repository, and our action beside it."""
        if not self.action.exists():
            self.action.mkdir(parents=True)
            shutil.copy(ROOT / "action.yml", self.action)
            for package in ("action", "quantguard"):
                ignore = shutil.ignore_patterns("__pycache__", "models")
                shutil.copytree(ROOT / package, self.action / package, ignore=ignore)
        for folder in (self.workspace, self.temp):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(policies, self.workspace / "policies", dirs_exist_ok=True)
        # What checkout leaves there where persist-credentials is forgotten.
        (self.workspace / ".git").mkdir(exist_ok=True)
        (self.workspace / ".git" / "config").write_text("[http]\n\textraheader = AUTHORIZATION: basic GIT-SECRET\n")
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(self.home)], check=True)

    def environment(self) -> dict[str, str]:
        passed = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
        return {
            **passed,
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_TOKEN": "ghs_RUNNER-SECRET",
            "ACTIONS_RUNTIME_TOKEN": "RUNTIME-SECRET",
            "GITHUB_RUN_ID": self.run_id,
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_JOB": "gate",
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_OUTPUT": str(self.temp / f"output-{self.run_id}"),
            "GITHUB_STEP_SUMMARY": str(self.temp / f"summary-{self.run_id}"),
            "RUNNER_TEMP": str(self.temp),
            "DOCKER_HOST": self.engine.url,
        }

    def steps(self) -> list[dict[str, Any]]:
        return list(yaml.safe_load((self.action / "action.yml").read_text())["runs"]["steps"])

    def start(self, step: dict[str, Any]) -> subprocess.Popen[str]:
        """One step, as the runner starts it: a file of its own, bash with its usual options, no shell above it."""
        script = self.temp / f"step-{self.run_id}-{step['name'].replace(' ', '-')}.sh"
        script.write_text(step["run"])
        os.chown(script, USER, USER)
        given = {name: self._resolved(str(value)) for name, value in step.get("env", {}).items()}
        return subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.workspace,
            env=self.environment() | given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=USER,
            group=USER,
            extra_groups=[],
            start_new_session=True,
        )

    def _resolved(self, text: str) -> str:
        match = _EXPRESSION.match(text)
        assert match or "${{" not in text, f"this runner does not know {text}"
        defaults = {"tracking-uri": self.uri, "image": self.image, "network": "host", "disk": "0.2"}
        return (defaults | self.inputs).get(match[1], "") if match else text

    def run(self) -> Ran:
        """The whole action."""
        self.before()
        gate = self.start(self.step("gate"))
        log, _ = gate.communicate(timeout=_PATIENCE)
        return self.after(gate.returncode, log)

    def step(self, identifier: str) -> dict[str, Any]:
        return next(step for step in self.steps() if step.get("id") == identifier)

    def before(self) -> None:
        """The steps before the gate."""
        for step in self.steps():
            if step.get("id") == "gate":
                return
            started = self.start(step)
            log, _ = started.communicate(timeout=_PATIENCE)
            assert started.returncode == 0, log

    def after(self, code: int, log: str) -> Ran:
        """The steps that always run, and what the job has learnt then."""
        for step in self.steps():
            # The preparation has succeeded: `before` requires it.
            if step.get("if") in ("always()", "always() && steps.prepare.outcome == 'success'"):
                started = self.start(step)
                more, _ = started.communicate(timeout=_PATIENCE)
                assert started.returncode == 0, more
                log += more
        return Ran(code, log, self._read("GITHUB_STEP_SUMMARY"), self._outputs())

    def _outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._read("GITHUB_OUTPUT").splitlines())

    def _read(self, variable: str) -> str:
        path = Path(self.environment()[variable])
        return path.read_text() if path.exists() else ""

    @property
    def work(self) -> Path:
        """Where the launcher works for these inputs."""
        given = {name: self._resolved(str(value)) for name, value in self.step("gate")["env"].items()}
        return make_job(self.environment() | given).work

    def files(self) -> list[Path]:
        """Everything below the work directory."""
        return sorted(self.work.rglob("*"))


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 of the launcher alone; its containers are the engine's children and live on."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = monotonic() + _PATIENCE
    while not condition():
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert monotonic() < deadline
        sleep(0.01)
