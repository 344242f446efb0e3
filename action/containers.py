"""Containers: one is started, watched and removed; and those that a killed launcher left are removed by the next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from action.job import Job
from action.log import Log
from action.rooms import Machine, Room, container_options
from quantguard.core.errors import MachineError

_LAUNCHER: Final = "quantguard.launcher"  # label: which process made the container


def run(client: Any, room: Room, job: Job, machine: Machine, log: Log) -> int:
    """Run one room to its end; the exit code of its process.

    However this ends, the container and its volumes are gone afterwards.

    Raises:
        MachineError: Docker would not make or start it.
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        options = container_options(room, job, machine, own_label())
        container = client.containers.create(**options)
        container.start()
        log.stream(room.name, container.logs(stream=True, follow=True))
        return int(container.wait()["StatusCode"])
    except (DockerException, RequestException) as error:
        message = f"Docker would not run the {room.name} container: {_told(error)}"
        raise MachineError(message, remedy=_remedy(error)) from error
    finally:
        remove_own(client)


def _told(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)


def _remedy(error: Exception) -> str:
    text = _told(error).lower()
    if any(word in text for word in ("device", "nvidia", "gpu", "cdi")):
        return "set up the NVIDIA container toolkit for Docker on the runner: nvidia-ctk runtime configure"
    if any(word in text for word in ("bind source path", "no such file", "statfs")):
        return "Docker does not see the runner's files: in a job container use the form of docs/job-container.md"
    return "see Docker's message"


def own_label() -> dict[str, str]:
    """What marks a container as this process's."""
    return {_LAUNCHER: _this_process()}


def remove_own(client: Any) -> None:
    """Remove what this process started, also where it was stopped before it heard of it."""
    _remove(_labelled(client, f"{_LAUNCHER}={_this_process()}"))


def sweep(client: Any) -> int:
    """Remove the containers whose launcher is gone, and say how many there were."""
    return _remove([one for one in _labelled(client, _LAUNCHER) if _abandoned(one.labels)])


def _labelled(client: Any, label: str) -> list[Any]:
    return list(client.containers.list(all=True, filters={"label": label}, ignore_removed=True))


def _remove(found: list[Any]) -> int:
    from docker.errors import APIError, NotFound

    for container in found:
        with suppress(APIError):  # it does not run any more
            container.kill()  # at once: some engines ask politely for ten seconds when they remove
        try:
            container.remove(force=True, v=True)
        except NotFound:  # it was going already
            continue
        except APIError as error:
            raise MachineError(f"container {container.short_id} stays: {_told(error)}", remedy="remove it") from error
    return len(found)


def _abandoned(labels: Mapping[str, str]) -> bool:
    """Whether the launcher that made it is no more. One that lives where we cannot see it is left alone."""
    namespace, _, process = labels.get(_LAUNCHER, "").rpartition("/")
    if namespace != _namespace():
        return False
    pid, _, started = process.partition("-")
    return _started(pid) != started


def _this_process() -> str:
    pid = str(os.getpid())
    return f"{_namespace()}/{pid}-{_started(pid)}"


def _namespace() -> str:
    """Of process ids, on this boot and for this user: elsewhere a number means another process, or a hidden one."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}/{os.getuid()}"


def _started(pid: str) -> str:
    """When process `pid` started, in clock ticks since boot; nothing where there is none."""
    try:
        stat = Path("/proc", pid, "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name, in parentheses, may hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
