"""Each program against its tests, one after the other: two fresh processes a problem, and nothing left of either.

This process starts both, passes their messages on without looking into them, keeps time and sizes, and ends whatever
the program started. What it says of a program is what the tester said last; see `quantguard.execute.harness`.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any, Final

from quantguard.execute.sealed import writable

HARNESS: Final = Path(__file__).with_name("harness.py")
WORDS: Final = frozenset({"passed", "failed", "timeout", "broken"})
_MOST_BYTES: Final = 1_000_000  # of one message
_MOST_CALLS: Final = 10_000  # of one problem
_NOTE: Final = 300  # characters


@dataclass(frozen=True, slots=True)
class Problem:
    """One program and what it is tested by."""

    source: str  # untrusted
    entry: str  # the function that the tests call
    setup: str  # run before the tests, in their process
    tests: str


@dataclass(frozen=True, slots=True)
class Limits:
    seconds: int = 10  # of wall clock for a problem, and of processor time for each of its processes
    mebibytes: int = 512  # of address space of each process


@dataclass(frozen=True, slots=True)
class Verdict:
    word: str  # one of WORDS: broken where the tests cannot be run, which says nothing of the program
    note: str = ""  # at most 300 characters; untrusted text


Sweep = Callable[[], None]


class _Late(Exception):  # noqa: N818  it never leaves this file
    pass


class _Gone(Exception):  # noqa: N818
    pass


def run_problem(problem: Problem, limits: Limits, sweep: Sweep) -> Verdict:
    """What becomes of one program. `sweep` ends and removes what its processes left, however this ends."""
    deadline = monotonic() + limits.seconds
    with tempfile.TemporaryDirectory(prefix="program-", ignore_cleanup_errors=True) as folder:
        started: list[_Child] = []
        try:
            return _run(problem, limits, Path(folder), started, deadline)
        except _Late:
            return Verdict("timeout", f"no verdict after {limits.seconds} seconds")
        except (_Gone, ValueError, KeyError, TypeError, OSError) as error:
            # Whoever ended them, or made them say something else: the program is the only one that may have wanted to.
            return Verdict("failed", f"the tests ended without a verdict ({type(error).__name__})")
        finally:
            for child in started:
                child.end()
            sweep()


def _run(problem: Problem, limits: Limits, folder: Path, started: list[_Child], deadline: float) -> Verdict:
    shared = {"seconds": limits.seconds, "mebibytes": limits.mebibytes, "entry": problem.entry}
    tester = _Child(folder)
    started.append(tester)
    tester.say({**shared, "role": "tester", "setup": problem.setup, "tests": problem.tests}, deadline)
    first = json.loads(tester.line(deadline))
    if first != {"ready": True}:  # hidden from the program before there is one
        return _verdict(first)
    program = _Child(folder)
    started.append(program)
    program.tell({**shared, "role": "program", "source": problem.source}, deadline)
    for _ in range(_MOST_CALLS):
        said = tester.line(deadline)
        message = json.loads(said)
        if "verdict" in message:
            return _verdict(message)
        try:
            program.send(said, deadline)
            reply = program.line(deadline)
        except _Gone as error:
            reply = json.dumps({"raised": ["Gone", str(error)]}).encode() + b"\n"
        tester.send(reply, deadline)
    return Verdict("broken", f"the tests call the function more than {_MOST_CALLS} times")


def _verdict(message: Any) -> Verdict:
    word, note = message["verdict"]
    if word not in WORDS:
        raise ValueError(word)
    return Verdict(word, str(note)[:_NOTE])


class _Child:
    """One process of the harness, with a process group of its own and no environment."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-I", "-S", "-B", str(HARNESS)]
        self._process = subprocess.Popen(
            command, cwd=folder, env={"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._in, self._out = _open(self._process.stdin), _open(self._process.stdout)
        self._read = b""

    def say(self, message: dict[str, object], deadline: float) -> None:
        self.send(json.dumps(message).encode() + b"\n", deadline)

    def tell(self, message: dict[str, object], deadline: float) -> None:
        """As `say`, to one that may have gone: the next line that is asked of it says so."""
        with suppress(_Gone):
            self.say(message, deadline)

    def send(self, data: bytes, deadline: float) -> None:
        while data:
            _wait(self._in, selectors.EVENT_WRITE, deadline)
            try:
                data = data[os.write(self._in.fileno(), data[:65536]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise _Gone("it ended") from error

    def line(self, deadline: float) -> bytes:
        """The next line, at most `_MOST_BYTES` of it."""
        while b"\n" not in self._read:
            if len(self._read) > _MOST_BYTES:
                raise _Gone("it said too much at once")
            _wait(self._out, selectors.EVENT_READ, deadline)
            data = os.read(self._out.fileno(), 65536)
            if not data:
                raise _Gone("it ended")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line + b"\n"

    def end(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise OSError("no pipe")
    os.set_blocking(pipe.fileno(), False)
    return pipe


def _wait(pipe: IO[bytes], event: int, deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, event)
        left = deadline - monotonic()
        if left <= 0 or not selector.select(left):
            raise _Late


def nothing_else() -> None:
    """Outside a container there is nothing that may be swept but what was started: `run_problem` ends its groups."""


def everything_else() -> None:
    """End every other process of this container and empty what is writable. Only for process 1 of a PID namespace."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            continue
    for folder in writable():
        for entry in list(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()
