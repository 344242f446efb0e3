"""What the runner must have, asked before anything is downloaded. Each failure is one line that says what to do."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from action.job import GIBIBYTE, Job
from action.rooms import Machine
from quantguard.core.errors import MachineError, UsageError

_API = "1.41"  # of Docker 20.10
_LEAST_MEMORY = 2 * GIBIBYTE  # torch, transformers and a model of no size at all


def connect() -> Any:
    """A Docker client.

    Raises:
        MachineError: there is no Docker here, or this user may not use it.
    """
    import docker
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    client = docker.from_env(timeout=60, version=_API)
    try:
        client.ping()
    except (DockerException, RequestException) as error:
        client.close()
        if "Permission denied" in str(error):
            remedy = "add the runner's user to the docker group and start the runner again"
            raise MachineError("this runner's user may not use Docker", remedy=remedy) from error
        remedy = "install Docker Engine on the runner, or use the job-container form (docs/job-container.md)"
        raise MachineError("no Docker answers on this runner", remedy=remedy) from error
    return client


def inspect(client: Any, job: Job, *, needs_gpu: bool, root: Path = Path("/")) -> Machine:
    """What the containers may use of this runner. `root` is the file system that describes it.

    Raises:
        MachineError: too little of something.
        UsageError: the inputs and the policy contradict each other.
    """
    info = client.info()
    gpus = _gpus(job.gpus, visible_gpus(root), needs_gpu=needs_gpu)
    memory = _memory(job.memory, root)
    _require_disk(job, client, info)
    rootless = any("rootless" in option for option in info.get("SecurityOptions") or ())
    # Without root, the daemon's own user is root inside: its files then belong to that user outside.
    user = "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"
    return Machine(user, memory, gpus)


def visible_gpus(root: Path) -> int:
    """How many NVIDIA GPUs the system shows, with or without a driver that lists them."""
    listed = root / "proc/driver/nvidia/gpus"
    if listed.is_dir():
        return len(list(listed.iterdir()))
    return len([path for path in (root / "dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])


def _gpus(asked: str, visible: int, *, needs_gpu: bool) -> int:
    if asked == "0" and needs_gpu:
        remedy = "take gpus: 0 out, or requires.gpu out of the policy"
        raise UsageError("the policy requires a GPU, and the input gpus is 0", remedy=remedy)
    if needs_gpu and not visible:
        remedy = "run on a GPU runner, or drop requires.gpu from the policy"
        raise MachineError("the policy requires a GPU, and this runner has none", remedy=remedy)
    if asked == "auto":
        return -1 if visible else 0
    least = 1 if asked == "all" else int(asked)
    if visible < least:
        remedy = "choose a runner that has them, or another number in the input gpus"
        raise MachineError(f"{least} GPUs are asked for, and this runner has {visible}", remedy=remedy)
    return -1 if asked == "all" else least


def _memory(asked: int | None, root: Path) -> int:
    available = next(
        int(line.split()[1]) * 1024
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        if line.startswith("MemAvailable:")
    )
    if asked is not None and asked < _LEAST_MEMORY:
        said = f"the input memory allows {asked / GIBIBYTE:.1f} GiB, and {_LEAST_MEMORY / GIBIBYTE:.1f} are needed"
        raise UsageError(said, remedy="raise it")
    limit = max(available - GIBIBYTE, _LEAST_MEMORY) if asked is None else asked
    if limit > available:
        said = f"{available / GIBIBYTE:.1f} GiB of memory are available, and {limit / GIBIBYTE:.1f} are needed"
        raise MachineError(said, remedy="free memory, choose a larger runner, or change the input memory")
    return limit


def _require_disk(job: Job, client: Any, info: dict[str, Any]) -> None:
    """Room for the model and its copies, and for the image where it has to be pulled."""
    places = [job.work]
    if not has_image(client, job.image):
        places.append(Path(info.get("DockerRootDir") or "/"))
    for place in places:
        free = _free(place)
        if free < job.disk:
            said = f"{free / GIBIBYTE:.1f} GiB are free, and {job.disk / GIBIBYTE:.1f} are needed"
            raise MachineError(said, path=place, remedy="free space there, or change the input disk")


def _free(place: Path) -> int:
    """Bytes that are free where `place` is or will be, or at the nearest directory above it that this user may see."""
    for path in (place, *place.parents):
        with suppress(OSError):
            return shutil.disk_usage(path).free
    return 0


def has_image(client: Any, image: str) -> bool:
    from docker.errors import ImageNotFound

    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    return True
