from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quantguard.core.errors import RegistryError
from quantguard.core.model import RegisteredVersion
from quantguard.registry import embedded
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.register import register_directory
from tests.registry.world import FILES, write_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def members(group: int) -> list[str]:
    """Names of the processes of a process group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        state, _, process_group = rest.split()[:3]
        if int(process_group) == group and state != "Z":
            found.append(name)
    return found


def gone_within(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not members(group)


PARENT = """
import sys, time
from pathlib import Path
from quantguard.registry.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
if sys.argv[2] == "while it starts":
    server._answers = lambda: print(server.process_group, "-", flush=True) or time.sleep(600)
with server:
    print(server.process_group, server.uri, flush=True)
    time.sleep(600)
"""


@contextmanager
def parent_of_a_server(root: Path, when: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A program that runs a server, the server's process group, and its address once it serves."""
    command = [sys.executable, "-c", PARENT, str(root), when]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        number, uri = parent.stdout.readline().split()
        group = int(number)
        try:
            yield parent, group, uri
        finally:
            if members(group):
                os.killpg(group, signal.SIGKILL)
            parent.kill()


def test_kill_9_of_its_program_ends_it_and_a_new_one_has_its_data(tmp_path: Path) -> None:
    root = tmp_path / "root with a space"
    with parent_of_a_server(root, "while it serves") as (parent, group, uri):
        identity = register_directory(uri, "kept", write_files(tmp_path / "in", FILES))
        assert len(members(group)) >= 3  # launcher, mlflow, uvicorn
        parent.kill()
        assert gone_within(group, 15)
    with EmbeddedServer(root) as server:
        assert MlflowRegistry(server.uri).identify(RegisteredVersion("kept", "1")) == identity
        group = server.process_group
        assert len(members(group)) >= 3
    assert members(group) == []
    server.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_program_that_ends_while_its_server_starts(how: signal.Signals, tmp_path: Path) -> None:
    with parent_of_a_server(tmp_path, "while it starts") as (parent, group, _):
        time.sleep(0.5)
        assert members(group)
        parent.send_signal(how)
        parent.wait(20)
        assert gone_within(group, 15)


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "mlflow.db").write_bytes(b"this is not a database" * 100)
    monkeypatch.setattr(embedded, "_ATTEMPTS", 1)
    with pytest.raises(RegistryError, match=r"did not start: .*not a database"):
        EmbeddedServer(root).__enter__()
