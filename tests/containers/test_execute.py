"""Generated programs in their real container: what they can reach, and what is left of them for the next one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from action.containers import own_label, remove_own
from action.executing import execute as execute_in_launcher
from action.executing import open_errands
from action.job import make_job
from action.rooms import ASKED, DONE
from quantguard.core.errors import MachineError
from quantguard.execute.container import run_container
from quantguard.verify.programs import program
from tests.command import quantguard
from tests.containers.engine import BASE, Engine, require_base
from tests.execute.test_problems import SOLUTIONS, SUITE
from tests.gate.test_execute import coding_policy
from tests.stories import Kind, write_story
from tests.test_house import ROOT

Row = tuple[str, str, str, str]
Execute = Callable[[Sequence[Row]], list[tuple[str, str]]]
GOOD = "def f(x):\n    return x\n"


@pytest.fixture(scope="module")
def executor(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian's Python with the one package that runs in the container."""
    require_base(engine)
    folder = tmp_path_factory.mktemp("executor")
    shutil.copytree(ROOT / "quantguard" / "execute", folder / "quantguard" / "execute")
    shutil.copytree(ROOT / "quantguard" / "core", folder / "quantguard" / "core")
    shutil.copy(ROOT / "quantguard" / "__init__.py", folder / "quantguard")
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nCOPY quantguard /usr/lib/python3/dist-packages/quantguard\n")
    return engine.build(folder, "localhost/quantguard-test/executor")


def record(rows: Sequence[Row], seconds: int = 5) -> bytes:
    settings = [["mebibytes", "512"], ["seconds", str(seconds)]]
    body = {"kind": "execute", "about": "a test", "settings": settings, "items": rows}
    return json.dumps({"schema": "quantguard.errand/1", "inputs": "sha256:aa", "body": body}).encode()


@pytest.fixture
def execute(engine: Engine, executor: str, monkeypatch: pytest.MonkeyPatch) -> Execute:
    for name, value in engine.environment().items():
        monkeypatch.setenv(name, value)

    def run(rows: Sequence[Row]) -> list[tuple[str, str]]:
        outcome = json.loads(run_container(record(rows), image=executor, engine="podman", seconds=120))
        assert outcome["inputs"] == outcome["body"]["errand"] == "sha256:aa"
        assert outcome["body"]["problem"] == ""
        return [(reply["word"], reply["note"]) for reply in outcome["body"]["replies"]]

    return run


def asks(source: str, tests: str) -> Row:
    return (source, "f", "", tests)


REACH = """
import ctypes, os, socket
def f(what):
    if what == 'network':
        names = [name for _, name in socket.if_nameindex()]
        try: socket.create_connection(('1.1.1.1', 53), 1)
        except OSError: return names
    if what == 'user': return [os.getuid(), os.getgid(), os.getgroups()]
    if what == 'environment': return sorted(os.environ)
    if what == 'write':
        done = []
        for path in ('/new', '/etc/new', '/usr/new', '/var/new', '/quantguard'):
            try: open(path, 'w'); done.append(path)
            except OSError: pass
        return done
    if what == 'runner':
        seen = []
        for path in ('/proc/1/mem', '/proc/1/environ', '/proc/1/fd/1', '/proc/1/maps'):
            for mode in ('rb', 'r+b'):
                try: open(path, mode).read(1); seen.append(path)
                except OSError: pass
        return seen
    if what == 'ptrace':
        return [ctypes.CDLL(None, use_errno=True).ptrace(16, pid, 0, 0) for pid in others()]
    if what == 'mounts':
        return [line.split()[4].split('/')[1] for line in open('/proc/self/mountinfo')]
    if what == 'kill 1':
        os.kill(1, 9)
        return os.path.exists('/proc/1')
def others():
    return [int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()]
"""


def test_a_program_reaches_nothing_and_the_runner_least_of_all(execute: Execute) -> None:
    tests = {
        "network": "assert f('network') in ([], ['lo'])",
        "user": "assert f('user')[:2] == [65532, 65532] and 0 not in f('user')[2]",
        "environment": "assert set(f('environment')) <= {'PATH', 'HOME', 'TMPDIR', 'LC_CTYPE'}",
        "write": "assert f('write') == []",
        "runner": "assert f('runner') == []",
        "ptrace": "assert set(f('ptrace')) == {-1}",
        "mounts": "assert set(f('mounts')) <= {'', 'proc', 'sys', 'dev', 'tmp', 'etc', 'run', 'var'}",
        "kill 1": "assert f('kill 1')",
    }
    told = dict(zip(tests, execute([asks(REACH, test) for test in tests.values()]), strict=True))
    assert told == dict.fromkeys(tests, ("passed", ""))


FORK_BOMB = "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass\n"
STAYS = """
import os, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for n in range(200):
                for folder in ('/tmp', '/dev/shm'):
                    try: open(f'{folder}/left-{n}', 'w').write('x')
                    except OSError: pass
                time.sleep(.02)
        os._exit(0)
    open('/tmp/left', 'w').write('x')
    os.makedirs('/dev/shm/left/left')
    time.sleep(.2)
    return x
"""
LOOKS = """
import os, time
def f(x):
    time.sleep(.3)
    left = [name for folder in ('/tmp', '/dev/shm') for name in os.listdir(folder) if 'left' in name]
    return left + [len([n for n in os.listdir('/proc') if n.isdigit()])]
"""


def test_nothing_is_left_of_one_program_for_the_next(execute: Execute) -> None:
    told = execute([
        asks(STAYS, "assert f(1) == 1"),
        asks(LOOKS, "assert f(1) == [3]"),  # the runner, its tester, itself
        asks(FORK_BOMB, "f(1)"),
        asks(LOOKS, "assert f(1) == [3]"),
        asks("import os\nos.kill(-1, 9)\n" + GOOD, "assert f(1) == 1"),
        asks("x = ['x' * 2**20 for _ in range(2**12)]\n" + GOOD, "assert f(1) == 1"),
        asks("import os\ndef f(x):\n    open('/tmp/big', 'wb').write(b'x' * 2**30)", "f(1)"),
        asks(GOOD, "assert f(1) == 1"),
    ])  # fmt: skip
    assert [word for word, _ in told] == [
        "passed", "passed", "timeout", "passed", "failed", "failed", "failed", "passed",
    ]  # fmt: skip


def test_a_container_that_is_less_than_sealed_runs_nothing(engine: Engine, executor: str) -> None:
    asked = record([asks(GOOD, "assert f(1) == 1")])
    sealed = [
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--user=65532:65532",
    ]
    said = {
        "--network=none": "it has a network",
        "--read-only": "its root can be written",
        "--cap-drop=ALL": "it has capabilities",
        "--security-opt=no-new-privileges": "it may gain privileges",
        "--user=65532:65532": "it runs as root",
        "": "/model is mounted",
    }
    sealed = [option for option in said if option]
    for missing, why in said.items():
        options = [option for option in sealed if option != missing] + ([] if missing else ["--volume=/usr:/model:ro"])
        outcome = json.loads(podman(engine, asked, *options, executor))
        assert outcome["body"]["replies"] == []
        assert why in outcome["body"]["problem"]


def podman(engine: Engine, asked: bytes, *words: str) -> str:
    with Path("/tmp").joinpath(f"asked-{id(asked)}").open("w+b") as file:
        file.write(asked)
        file.seek(0)
        Path(file.name).unlink()
        command = ["run", "--rm", "--interactive", "--entrypoint=python3", *words, "-I", "-m", "quantguard.execute"]
        return engine.podman(*command, stdin=file.fileno())


def test_an_image_that_is_not_there_is_told_and_not_pulled(engine: Engine, execute: Execute) -> None:
    with pytest.raises(MachineError, match="is the image there"):
        run_container(record([]), image="localhost/quantguard-test/none", engine="podman", seconds=60)


def test_the_launcher_hands_the_errand_over_and_leaves_what_comes_back(
    engine: Engine, executor: str, tmp_path: Path
) -> None:
    given = {"MODEL": "models:/m/1", "POLICY": "policy.yaml", "IMAGE": executor, "WORK": "work"}
    named = {f"QUANTGUARD_{name}": value for name, value in given.items()}
    job = make_job({**named, "GITHUB_WORKSPACE": str(tmp_path)})
    (job.work / ASKED).mkdir(parents=True)
    (job.work / DONE).mkdir()
    rows = [asks(GOOD, f"assert f({number}) == {number}") for number in range(3)] + [asks("x" * 2**20, "f(1)")]
    (job.work / ASKED / "execute-aa.json").write_bytes(record(rows))
    (paths,) = open_errands(job)
    try:
        execute_in_launcher(engine.client, job, own_label(), paths)
    finally:
        remove_own(engine.client)  # as the launcher does, which has other rooms to run after it
    assert engine.containers() == []
    body = json.loads((job.work / DONE / "execute-aa.json").read_text())["body"]
    assert [reply["word"] for reply in body["replies"]] == ["passed"] * 3 + ["failed"]
    assert body["problem"] == ""
    assert open_errands(job) == ()
    assert not list((job.work / DONE).glob(".*"))


def test_verify_has_programs_run_in_the_container(engine: Engine, executor: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(shutil.which("podman") or "")
    path = f"{tmp_path / 'bin'}:{engine.environment()['PATH']}"
    environment = {name: value for name, value in engine.environment().items() if name.startswith("CONTAINERS")}
    model = write_story(Kind.CLEAN, tmp_path / "model")
    report = tmp_path / "report.json"
    ran = quantguard(
        "verify", model, "--policy", coding_policy(tmp_path / "policy"), "--output", f"json={report}",
        env={**environment, "PATH": path, "QUANTGUARD_EXECUTOR_IMAGE": executor},
    )  # fmt: skip
    assert ran.code == 0, ran.err
    benchmarks = json.loads(report.read_text())["facts"]["original"]["benchmarks"]
    assert [(b["accuracy"]["successes"], b["accuracy"]["trials"]) for b in benchmarks] == [(0, 12)] * 2
    assert not engine.podman("ps", "--all", "--quiet", "--filter", "name=quantguard-execute")


def test_all_built_in_problems_are_passed_by_their_solutions(execute: Execute) -> None:
    rows = [(program(p, SOLUTIONS[p.name]), p.entry, p.setup, p.tests) for p in SUITE]
    assert execute(rows) == [("passed", "")] * len(SUITE)
