"""What starts Python on the runner's host, with a real pip and a wheel of our own in the place of an index."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOOTSTRAP = ROOT / "action" / "bootstrap.sh"
BASH = shutil.which("bash") or "/bin/bash"
LINE = b"LINE = 'from the wheel'\n"


def wheel(folder: Path) -> str:
    """Write the wheel of a package of one line; its digest."""
    info = "pocket-1.0.dist-info"
    path = folder / "pocket-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pocket.py", LINE)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: pocket\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"pocket.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Runner:
    """A runner's host: folders with odd names, and a lock of the pocket wheel."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def temp(self) -> Path:
        return self.root / "run ner" / "_temp"

    @property
    def lock(self) -> Path:
        return self.root / "requirements.txt"

    @property
    def workspace(self) -> Path:
        return self.root / "work space"

    def command(self, *arguments: str) -> list[str]:
        return [BASH, str(BOOTSTRAP), str(self.lock), *arguments]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.workspace,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            umask=0o077,
        )


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return make_runner(tmp_path_factory.mktemp("runner"))


def make_runner(root: Path) -> Runner:
    wheels = root / "wheels"
    runner = Runner(root, isolated(root, wheels))
    for folder in (wheels, runner.temp, runner.workspace, root / "home"):
        folder.mkdir(parents=True)
    runner.lock.write_text(f"pocket==1.0 --hash=sha256:{wheel(wheels)}\n", encoding="utf-8")
    for name in ("venv", "pip", "ensurepip", "pocket"):  # what a pull request may bring along
        (runner.workspace / f"{name}.py").write_text("raise SystemExit('the workspace ran')\n", encoding="utf-8")
    return runner


def isolated(root: Path, wheels: Path) -> dict[str, str]:
    """No index, no pip configuration of this machine, and a Python of somebody else in the variables."""
    kept: Mapping[str, str] = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return dict(kept) | {
        "HOME": str(root / "home"),
        "RUNNER_TEMP": str(root / "run ner" / "_temp"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PYTHONHOME": str(root / "nowhere"),
        "PYTHONPATH": str(root / "work space"),
    }


def test_python_starts_with_what_the_lock_names_and_nothing_of_the_workspace(runner: Runner) -> None:
    done = runner.run("-P", "-c", "import pocket, sys, action.options; print(pocket.LINE, sys.argv[1:])", "a b", "%")
    assert (done.returncode, done.stdout) == (0, "from the wheel ['a b', '%']\n"), done.stderr


def test_an_environment_is_made_once(runner: Runner) -> None:
    assert runner.run().returncode == 0
    again = runner.run("-P", "-c", "import pocket", PIP_FIND_LINKS=str(runner.root / "nowhere"))
    assert again.returncode == 0, again.stderr
    assert len(list(runner.temp.iterdir())) == 1


def test_python_takes_the_place_of_the_shell(runner: Runner) -> None:
    """Or the runner's interrupt would end the shell and leave the launcher's containers running."""
    with subprocess.Popen(
        runner.command("-P", "-c", "import os; print(os.getpid())"),
        cwd=runner.workspace,
        env=runner.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        told, _ = process.communicate(timeout=120)
    assert int(told) == process.pid


def test_two_jobs_at_once_share_one_environment(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    command = runner.command("-P", "-c", "import pocket; print(pocket.__file__)")
    jobs = [
        subprocess.Popen(command, cwd=runner.workspace, env=runner.environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = {job.communicate(timeout=300)[0] for job in jobs}
    assert [job.returncode for job in jobs] == [0, 0]
    assert len(told) == 1
    (environment,) = runner.temp.iterdir()
    assert list(environment.glob("quantguard-*")) == [], "the slower one went into the faster one's"


def test_an_environment_that_was_killed_half_made_is_not_used(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    (whole,) = (tmp_path / "wheels").iterdir()
    kept = whole.rename(tmp_path / whole.name)
    os.mkfifo(whole)  # pip waits here
    process = subprocess.Popen(
        runner.command(),
        cwd=runner.workspace,
        env=runner.environment,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    writer = opened_by_reader(whole, process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    os.close(writer)
    (half,) = runner.temp.iterdir()
    assert (half / "bin" / "python").exists()
    whole.unlink()
    kept.rename(whole)
    done = runner.run("-P", "-c", "import pocket; print(pocket.LINE)")
    assert (done.returncode, done.stdout) == (0, "from the wheel\n"), done.stderr


def opened_by_reader(fifo: Path, process: subprocess.Popen[bytes]) -> int:
    """The writing end, once `process` has the other one open."""
    while process.poll() is None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.01)
    raise AssertionError("pip never came to the wheel")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"pocket==1.0 --hash=sha256:{'0' * 64}", "THESE PACKAGES DO NOT MATCH THE HASHES"),
        ("pocket==1.0", "Hashes are required in --require-hashes mode"),
    ],
    ids=["another digest", "no digest"],
)
def test_what_the_digest_does_not_vouch_for_is_refused_in_one_line_and_leaves_nothing(
    tmp_path: Path, line: str, said: str
) -> None:
    runner = make_runner(tmp_path)
    runner.lock.write_text(line + "\n", encoding="utf-8")
    done = runner.run("-P", "-c", "print('started')")
    assert done.returncode == 2
    assert done.stdout.startswith("::error title=QuantGuard::pip could not install")
    assert done.stdout.count("\n") == 1
    assert said in done.stderr
    assert list(runner.temp.iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("PATH", "no Python 3.11 or later with the venv module"),
        ("RUNNER_TEMP", "RUNNER_TEMP is not set"),
    ],
)
def test_a_runner_that_lacks_something_is_told_in_one_line(runner: Runner, missing: str, told: str) -> None:
    done = runner.run("-P", "-c", "print('started')", **{missing: ""})
    assert done.returncode == 2
    assert done.stdout.startswith(f"::error title=QuantGuard::{told}")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_a_python_without_venv_is_passed_over(tmp_path: Path) -> None:
    """Debian's python3 without python3-venv: it starts, and cannot make an environment."""
    runner = make_runner(tmp_path)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python3"):
        (bare / name).write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\n', encoding="utf-8")
        (bare / name).chmod(0o755)
    done = runner.run("-P", "-c", "print('started')", PATH=str(bare))
    assert done.returncode == 2
    assert done.stdout.startswith("::error title=QuantGuard::no Python 3.11 or later with the venv module")
