"""The story: look at the runner, then fetch, assess and publish, each in its container; leave nothing behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from action import containers, executing, preflight
from action.job import GIBIBYTE, Job
from action.log import Log
from action.outputs import Result
from action.policy_files import Needs, read_needs
from action.rooms import ASKED, DONE, ERRANDS, MEASURED, STAGES, Machine, make_room
from quantguard.core.errors import MachineError
from quantguard.core.verdict import ExitCode

_TITLES: Mapping[str, str] = {
    "fetch": "fetch: network, a credential that reads, no GPU",
    "assess": "assess: no network, no credential, weights read-only",
    "judge": "judge: network, the judge's key, no weights",
    "execute": "execute: generated programs, no network, no credential, no file of the runner",
    "publish": "publish: network, the gate's own credential, no model code",
}
# The last file that each stage writes, in the work directory.
_LEAVES: Mapping[str, str] = {
    "fetch": "fetched.json",
    "assess": "evidence/outcome.json",
    "publish": "published.json",
}
# There while assess waits for errands: quantguard.gate.errands.
_AWAITED = f"{ASKED}/awaited.json"
_STOPS = 2  # at most: the original's errands, and the hardened copy's
_KILLED = 137  # 128 + SIGKILL


@dataclass(frozen=True, slots=True)
class Runner:
    client: Any  # docker.DockerClient
    machine: Machine
    log: Log


def gate(job: Job, log: Log) -> Result:
    """Run the whole gate for one job.

    Raises:
        QuantGuardError: the runner or the inputs do not allow it; nothing was downloaded. Or Docker failed midway.
    """
    needs = read_needs(job.policy, job.workspace, job.waivers)
    client = preflight.connect()
    try:
        _say_swept(containers.sweep(client), log)
        machine = preflight.inspect(client, job, needs_gpu=needs.gpu)
        pull(client, job, log)
        _prepare(job)
        return _stages(job, needs, Runner(client, machine, log))
    finally:
        containers.remove_own(client)  # a signal may have cut short what each stage does itself
        client.close()


def _say_swept(count: int, log: Log) -> None:
    if count:
        log.say(f"removed {count} containers that an earlier run left")


def _prepare(job: Job) -> None:
    """The directories that are mounted; Docker would make them as root."""
    try:
        for name in ("model", *MEASURED, DONE):
            (job.work / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot be made: {error.strerror or error}"
        raise MachineError(message, path=job.work, remedy="check the input work and its permissions") from error


def _stages(job: Job, needs: Needs, runner: Runner) -> Result:
    for left in (_LEAVES["assess"], _LEAVES["publish"]):  # of an earlier run; fetch knows what of its own still holds
        (job.work / left).unlink(missing_ok=True)
    (job.work / _AWAITED).unlink(missing_ok=True)
    shutil.rmtree(job.work / "report", ignore_errors=True)
    code = ExitCode.INCONCLUSIVE
    for stage in STAGES:
        ended = _run(stage, job, needs, runner)
        for _ in range(_STOPS if stage == "assess" else 0):
            if (job.work / _LEAVES[stage]).exists() or not (job.work / _AWAITED).exists():
                break
            for errand in (name for name in ERRANDS if any((job.work / ASKED).glob(f"{name}-*.json"))):
                _run(errand, job, needs, runner)  # whatever comes of it, assess tells
            _execute(job, runner)
            ended = _run(stage, job, needs, runner)
        code = ExitCode(ended) if ended in set(ExitCode) else ExitCode.INCONCLUSIVE
        if not _finished(stage, code, job):
            # A stage that said "passed" and left nothing to show for it did not pass.
            code = ExitCode.INCONCLUSIVE if code is ExitCode.PASSED else code
            return Result(code, job.model, job.work, _problem(stage, ended, runner))
    result = Result(code, job.model, job.work)
    runner.log.say(f"{result.verdict.value}: {job.model}, evidence in {job.work / 'evidence'}")
    return result


def _execute(job: Job, runner: Runner) -> None:
    """Have generated programs run, where they are asked to be; whatever comes of it, assess tells."""
    for paths in executing.open_errands(job):
        with runner.log.group(_TITLES[executing.STAGE]):
            try:
                executing.execute(runner.client, job, containers.own_label(), paths)
            except MachineError as error:
                runner.log.say(f"{executing.STAGE}: {error}")
            finally:
                containers.remove_own(runner.client)


def _run(stage: str, job: Job, needs: Needs, runner: Runner) -> int:
    """Run the container of one stage to its end; the exit code of its process."""
    _prepare(job)
    room = make_room(stage, job, runner.machine, needs.files)
    with runner.log.group(_TITLES[stage]):
        return containers.run(runner.client, room, job, runner.machine, runner.log)


def _finished(stage: str, code: ExitCode, job: Job) -> bool:
    """Whether the next stage has what it needs. A model that is blocked or held goes on to publish, which says so."""
    passing = {ExitCode.PASSED}
    deciding = {ExitCode.PASSED, ExitCode.BLOCKED, ExitCode.INCONCLUSIVE}
    return code in (passing if stage == "fetch" else deciding) and (job.work / _LEAVES[stage]).exists()


def _problem(stage: str, code: int, runner: Runner) -> str:
    if code == _KILLED:
        limit = f"{runner.machine.memory / GIBIBYTE:.1f} GiB"
        return f"the {stage} container was killed: where it needed more than its {limit}, raise the input memory"
    said = runner.log.last.get(stage)
    return said if said else f"the {stage} container ended with exit code {code}; its last lines are in the log"


def pull(client: Any, job: Job, log: Log) -> None:
    """Bring the image here, unless it is.

    Raises:
        MachineError: its registry does not have it, or does not give it to us.
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    if preflight.has_image(client, job.image):
        return
    with log.group(f"pull {job.image}"):
        try:
            for step in client.api.pull(job.image, stream=True, decode=True):
                if step.get("status") in ("Pull complete", "Already exists"):
                    log.say(f"{step['status']}: {step.get('id', '')}")
                if "error" in step:
                    raise MachineError(f"the image cannot be pulled: {step['error']}", remedy=_PULL_REMEDY)
        except (DockerException, RequestException) as error:
            raise MachineError(f"the image cannot be pulled: {error}", remedy=_PULL_REMEDY) from error


_PULL_REMEDY = "check the digest, and log in to its registry in a step before"


def claim(work: Path) -> socket.socket:
    """Hold `work` for this process, until it closes what is returned or ends in any way.

    Two runs in one directory would tidy away each other's files. The name is of the kernel's and leaves none behind.

    Raises:
        MachineError: another run of this user holds it.
    """
    name = hashlib.sha256(os.fsencode(work)).hexdigest()
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0quantguard-{os.getuid()}-{name}")
    except OSError as error:
        held.close()
        raise MachineError("another run is at work here", path=work, remedy="wait until it is over") from error
    return held


def tidy(work: Path, *, kept: bool) -> None:
    """Remove partial downloads and what is of no use later; where the user named the directory, keep what resumes."""
    copies = () if kept else (work / "model", work / "hardened", work / "errands")
    for path in (*work.glob("*.partial*"), work / "scratch", *copies):
        shutil.rmtree(path, ignore_errors=True)
    if work.is_dir() and not any(path.is_file() for path in work.rglob("*")):
        shutil.rmtree(work, ignore_errors=True)
