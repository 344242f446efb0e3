"""`quantguard` as a user runs it: a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self

COMMAND = (sys.executable, "-m", "quantguard.cli.main")
_PATIENCE = 300.0  # seconds; nothing that is waited for here takes a third of it on a quiet machine


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, on one thread (the models are tiny) and without a tracking server of the developer's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {**kept, "OMP_NUM_THREADS": "1", **(extra or {})}


def quantguard(*arguments: str | Path, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = COMMAND) -> Ran:
    """Run it to its end."""
    command = [*prefix, *map(str, arguments)]
    ran = subprocess.run(command, env=environment(env), capture_output=True, text=True, check=False, timeout=_PATIENCE)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def processes_naming(text: str | Path) -> dict[int, str]:
    """Ids and command lines of all processes of this machine that name `text` in theirs."""
    found = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(text) in line:
                    found[int(directory.name)] = line
    return found


class Running:
    """It runs, with its children in a process group of its own. Use it as a context manager: none of them is left."""

    def __init__(self, *arguments: str | Path, log: Path) -> None:
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                env=environment(),
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.wait()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Whether `condition` came true while it ran."""
        deadline = monotonic() + _PATIENCE
        while not condition():
            if self.ended or monotonic() > deadline:
                return False
            sleep(0.001)
        return True

    def kill(self) -> None:
        """kill -9 of the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """A signal to the command alone, not to its children, as `kill` sends it."""
        self._process.send_signal(number)

    def press_ctrl_c(self) -> None:
        """SIGINT to the whole group, as a terminal sends it."""
        os.killpg(self._process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Its return code."""
        return self._process.wait(_PATIENCE)
