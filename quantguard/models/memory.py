"""How much memory is free where a model runs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# A container's limit and use: version 2 of Linux' control groups, then version 1.
_GROUPS: Final = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory(device: str) -> int:
    """Bytes that may still be taken on `cpu` or `cuda:N`, what torch holds in reserve included."""
    import torch

    if device.startswith("cuda"):
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserved
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min([available, *_left_in_group()])


def free_unused(device: str) -> None:
    """Give back what torch holds in reserve on `device`, once nothing refers to it."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether a device had too little memory: CUDA says so by a type, the CPU's allocator in words."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def memory_text(size: float) -> str:
    """`1.5 GiB`, and below one `330 MiB`."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _left_in_group() -> list[int]:
    for limit, used in _GROUPS:
        try:
            return [max(0, int(Path(limit).read_text()) - int(Path(used).read_text()))]
        except (OSError, ValueError):  # no such group, or no limit ("max")
            continue
    return []
