"""The rooms as containers: what each may reach, and nothing else. Pure: nothing is started here.

| room    | network | credential     | GPU | may write                                          |
| ------- | ------- | -------------- | --- | -------------------------------------------------- |
| fetch   | yes     | reads registry | no  | the work directory                                 |
| assess  | none    | none           | yes | evidence, errands/asked, hardened, scratch, report |
| publish | yes     | writes, signs  | no  | the work directory less what it reads, the ledger  |

Between two runs of assess, where it asks for it, a room of an errand (`quantguard.core.errand`), which sees no weights:

| judge   | yes     | the judge's    | no  | errands/done, and reads errands/asked              |
| execute | none    | none           | no  | nothing, and sees no file (`action/executing.py`)  |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from action.job import Job

STAGES: Final = ("fetch", "assess", "publish")
# Of the work directory, which `quantguard.gate.work` describes.
MEASURED: Final = ("evidence", "errands/asked", "hardened", "scratch", "report")  # what assess writes
_SETTLED: Final = ("model", "evidence", "hardened", "errands")  # what publish may only read
ASKED: Final = "errands/asked"
DONE: Final = "errands/done"
ERRANDS: Final = ("judge",)  # stages that answer ASKED/STAGE-*.json
_TMP: Final = {"/tmp": "rw,nosuid,nodev,noexec,size=2g,mode=1777"}  # noqa: S108  the container's own
_PIDS: Final = 4096  # threads count; torch starts some per core


@dataclass(frozen=True, slots=True)
class Machine:
    """What the runner gives, as `preflight` found it."""

    user: str  # UID:GID that the files shall belong to
    memory: int  # bytes that the sealed container may use
    gpus: int  # how many it gets; 0: none, -1: all


@dataclass(frozen=True, slots=True)
class Room:
    name: str
    command: tuple[str, ...]
    network: str
    environment: Mapping[str, str]
    mounts: Mapping[Path, bool]  # path, the same inside and outside -> may be written
    gpus: int = 0


def make_room(stage: str, job: Job, machine: Machine, policy_files: tuple[Path, ...]) -> Room:
    """The room of `stage`. `policy_files` are absolute: the policy and the files that it names."""
    given = dict.fromkeys(policy_files, False)
    if job.directory is not None and stage in ("fetch", "publish"):  # assess reads the copy that fetch made
        given[job.directory] = False
    match stage:
        case "fetch":
            network, environment, mounts = job.network, job.read_environment, {job.work: True}
        case "assess":
            network, environment = "none", {}
            mounts = {job.work: False} | {job.work / name: True for name in MEASURED}
        case "publish":
            network, environment = job.network, job.write_environment
            mounts = {job.work: True} | {job.work / name: False for name in _SETTLED} | dict.fromkeys(job.ledgers, True)
        case "judge":
            network, environment = job.network, job.judge_environment
            mounts = {job.work / ASKED: False, job.work / DONE: True}
        case _:
            raise ValueError(f"no room {stage!r}")
    return Room(
        name=stage,
        command=_command(stage, job, machine),
        network=network,
        environment=environment,
        mounts=mounts | given,
        gpus=machine.gpus if stage == "assess" else 0,
    )


def _command(stage: str, job: Job, machine: Machine) -> tuple[str, ...]:
    device = "cuda" if machine.gpus else "cpu"
    options = {"--policy": job.policy, "--work": job.work, "--stage": stage, "--device": device, "--seed": job.seed}
    if job.waivers is not None and stage not in ERRANDS:
        options["--waivers"] = job.waivers
    return ("gate", job.model, *(str(word) for option in options.items() for word in option))


def container_options(room: Room, job: Job, machine: Machine, labels: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `docker.containers.create`."""
    from docker.types import DeviceRequest, Mount

    return {
        "image": job.image,
        "command": list(room.command),
        "working_dir": str(job.workspace),  # a policy's path is told as the user gave it
        "user": machine.user,
        "environment": dict(room.environment),
        "mounts": [
            Mount(target=str(path), source=str(path), type="bind", read_only=not writable)
            for path, writable in room.mounts.items()
        ],
        "network_mode": room.network,
        "read_only": True,
        "tmpfs": dict(_TMP),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": _PIDS,
        "mem_limit": machine.memory,
        "memswap_limit": machine.memory,  # no swap: a hostile config must not drag the host down
        "device_requests": [DeviceRequest(count=room.gpus, capabilities=[["gpu"]])] if room.gpus else [],
        "labels": dict(labels),
        "detach": True,
    }
