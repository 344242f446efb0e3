"""Errands of generated programs: each in a container of its own, which gets the errand and gives the outcome.

It has no mount, so nothing that was written by a model can reach a file of the runner; what it says is bytes here, and
is read in the assess container, strictly.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from action.job import Job
from action.rooms import ASKED, DONE
from quantguard.core.errors import MachineError
from quantguard.execute.container import COMMAND, MEMORY, PIDS, TMPFS, USER

STAGE: Final = "execute"
_MOST_BYTES: Final = 256 * 1024 * 1024
_START_SECONDS: Final = 120.0


def open_errands(job: Job) -> tuple[tuple[Path, Path], ...]:
    """(what is asked, where its outcome goes) of each errand that is not done."""
    asked = sorted((job.work / ASKED).glob(f"{STAGE}-*.json"))
    return tuple((path, done) for path in asked if not _settles(done := job.work / DONE / path.name))


def executor_options(job: Job, labels: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `docker.containers.create`, the same container as `quantguard.execute.container` starts."""
    return {
        "image": job.image,
        "entrypoint": ["python3"],
        "command": list(COMMAND),
        "working_dir": "/",
        "user": USER,
        "stdin_open": True,
        "network_mode": "none",
        "read_only": True,
        "tmpfs": dict(TMPFS),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": PIDS,
        "mem_limit": MEMORY,
        "memswap_limit": MEMORY,
        "nano_cpus": 10**9,  # one processor
        "labels": dict(labels),
    }


def execute(client: Any, job: Job, labels: Mapping[str, str], paths: tuple[Path, Path]) -> None:
    """Hand one errand to its container, and leave what comes back.

    Raises:
        MachineError: Docker would not, the container took too long or said too much, or the errand cannot be read.
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    asked, done = paths
    data = _read(asked)
    try:
        container = client.containers.create(**executor_options(job, labels))
        said = _piped(container, data, _seconds(data))
    except (DockerException, RequestException, OSError) as error:
        raise MachineError(f"generated programs were not run: {error}", remedy="see Docker's message") from error
    with tempfile.NamedTemporaryFile(dir=done.parent, prefix=".", suffix=".partial", delete=False) as file:
        file.write(said)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(done)


def _piped(container: Any, data: bytes, seconds: float) -> bytes:
    """What a container that was created writes to its standard output for `data`; it is started here."""
    import socket

    from docker.utils.socket import frames_iter

    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 0, "stream": 1})
    link = getattr(stream, "_sock", stream)
    try:
        container.start()
        link.settimeout(seconds)  # also of each wait for a part: it says all at its end
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        said = bytearray()
        for _, part in frames_iter(stream, tty=False):
            said += part
            if len(said) > _MOST_BYTES:
                raise OSError(f"the container wrote more than {_MOST_BYTES} bytes")
        return bytes(said)
    finally:
        for held in (getattr(stream, "_response", stream), stream, link):  # the SDK keeps the response in it
            held.close()


def _read(path: Path) -> bytes:
    """An errand; it was written where weights are open, so nothing but an ordinary file of its size is read."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            raise MachineError("this is not an errand", path=path)
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise MachineError(f"cannot be read: {error.strerror or error}", path=path) from error


def _seconds(data: bytes) -> float:
    """How long its programs may take together."""
    try:
        body = json.loads(data)["body"]
        each = float(dict(body["settings"])["seconds"])
        return _START_SECONDS + len(body["items"]) * (min(each, 600.0) + 1)
    except (ValueError, KeyError, TypeError, RecursionError):
        return _START_SECONDS  # the container says what is wrong with it


def _settles(done: Path) -> bool:
    """Whether an outcome is there that is not tried again. What it holds is looked into by who reads it."""
    try:
        return not json.loads(_read(done))["body"]["problem"]
    except (MachineError, ValueError, KeyError, TypeError, RecursionError):
        return False
