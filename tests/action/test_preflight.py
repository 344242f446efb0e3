"""What a runner lacks, in one line that says what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound

from action.job import GIBIBYTE
from action.preflight import inspect, visible_gpus
from quantguard.core.errors import MachineError, UsageError
from tests.action.test_rooms import make


class Engine:
    """A Docker engine that answers what `inspect` asks."""

    def __init__(self, *, rootless: bool = False, image: bool = True) -> None:
        self._rootless, self._image = rootless, image
        self.images = self

    def info(self) -> dict[str, Any]:
        options = ["name=seccomp,profile=default", *(["name=rootless"] if self._rootless else [])]
        return {"SecurityOptions": options, "DockerRootDir": "/"}

    def get(self, name: str) -> str:
        if not self._image:
            raise ImageNotFound(name)
        return name


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """The files of a system with 8 GiB available and two GPUs."""
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/gpus/0000:02:00.0").mkdir()
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:   {8 * 1024**2} kB\n"
    )
    (tmp_path / "dev").mkdir()
    return tmp_path


def without_gpus(system: Path) -> Path:
    (system / "proc/driver").rename(system / "proc/nothing")
    return system


def test_gpus_are_counted_with_and_without_a_listing_driver(system: Path) -> None:
    assert visible_gpus(system) == 2
    without_gpus(system)
    assert visible_gpus(system) == 0
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm"):
        (system / "dev" / name).touch()
    assert visible_gpus(system) == 3


@pytest.mark.parametrize(("asked", "given"), [("auto", -1), ("all", -1), ("1", 1), ("2", 2), ("0", 0)])
def test_the_gpus_that_are_asked_for_are_given(asked: str, given: int, system: Path) -> None:
    assert inspect(Engine(), make(GPUS=asked, DISK="0"), needs_gpu=False, root=system).gpus == given


@pytest.mark.parametrize("asked", ["all", "1", "3"])
def test_too_few_gpus_are_told(asked: str, system: Path) -> None:
    without_gpus(system)
    with pytest.raises(MachineError, match=r"GPUs are asked for, and this runner has 0 \(choose"):
        inspect(Engine(), make(GPUS=asked, DISK="0"), needs_gpu=False, root=system)
    assert inspect(Engine(), make(DISK="0"), needs_gpu=False, root=system).gpus == 0


def test_a_policy_that_requires_a_gpu_never_runs_without_one(system: Path) -> None:
    assert inspect(Engine(), make(DISK="0"), needs_gpu=True, root=system).gpus == -1
    with pytest.raises(UsageError, match="the input gpus is 0"):
        inspect(Engine(), make(GPUS="0", DISK="0"), needs_gpu=True, root=system)
    without_gpus(system)
    with pytest.raises(MachineError, match="the policy requires a GPU, and this runner has none"):
        inspect(Engine(), make(DISK="0"), needs_gpu=True, root=system)


def test_memory_is_what_is_available_less_one_gibibyte(system: Path) -> None:
    assert inspect(Engine(), make(DISK="0"), needs_gpu=False, root=system).memory == 7 * GIBIBYTE
    assert inspect(Engine(), make(DISK="0", MEMORY="4g"), needs_gpu=False, root=system).memory == 4 * GIBIBYTE


def test_too_little_memory_is_told(system: Path) -> None:
    with pytest.raises(MachineError, match=r"8\.0 GiB of memory are available, and 9\.0 are needed"):
        inspect(Engine(), make(DISK="0", MEMORY="9g"), needs_gpu=False, root=system)
    with pytest.raises(UsageError, match=r"the input memory allows 1\.0 GiB, and 2\.0 are needed"):
        inspect(Engine(), make(DISK="0", MEMORY="1g"), needs_gpu=False, root=system)


def test_a_machine_without_memory_to_spare_is_told(system: Path) -> None:
    (system / "proc/meminfo").write_text(f"MemAvailable: {1024**2} kB\n")
    with pytest.raises(MachineError, match=r"1\.0 GiB of memory are available, and 2\.0 are needed"):
        inspect(Engine(), make(DISK="0"), needs_gpu=False, root=system)


@pytest.mark.parametrize("image", [True, False])
def test_too_little_disk_is_told(image: bool, system: Path) -> None:
    with pytest.raises(MachineError, match=r"GiB are free, and 999999.0 are needed \(free space there"):
        inspect(Engine(image=image), make(DISK="999999"), needs_gpu=False, root=system)


def test_files_belong_to_the_runner_also_where_docker_has_no_root(system: Path) -> None:
    job = make(DISK="0")
    assert inspect(Engine(rootless=True), job, needs_gpu=False, root=system).user == "0:0"
    assert inspect(Engine(), job, needs_gpu=False, root=system).user == f"{os.getuid()}:{os.getgid()}"
