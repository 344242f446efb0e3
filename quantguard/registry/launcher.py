"""Runs a command and kills all of it when the process that asked for it is gone. Started by `embedded`, by path.

The asking process keeps the write end of this one's standard input. When it ends in any way, `kill -9` included, the
pipe closes (or, where a fork of it still holds the pipe, this process gets another parent), and the command's whole
process group is killed. Standard library only, so that it starts at once.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from types import FrameType

_POLL_SECONDS = 0.25
_GRACE_SECONDS = 5.0


def main(arguments: list[str]) -> None:
    """`arguments` is the asking process's id and the command."""
    parent, command = int(arguments[0]), arguments[1:]
    signal.signal(signal.SIGTERM, _leave)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        while server.poll() is None and os.getppid() == parent and not _closed():
            pass
    finally:
        _stop(server)


def _leave(signum: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + signum)


def _closed() -> bool:
    readable, _, _ = select.select([sys.stdin.buffer], [], [], _POLL_SECONDS)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Ask, then kill the group, this process with it: nothing the command started may outlive it."""
    if server.poll() is None:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
