"""Models that one device cannot hold: accelerate's device map lays their parts elsewhere and fetches each to run it.

What has room on no device stays in the model's own files and is read whenever it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from quantguard.models.memory import free_memory

if TYPE_CHECKING:
    from torch import Tensor, nn

Room = Mapping[int | str, int]  # bytes of weights that may lie there: index of a CUDA device, or "cpu"

_CPU_SHARE: Final = 0.7  # of the free memory of the machine, for weights that a CUDA device has no room for


def room_beside(device: str, resident: int, *, machine: int | None = None) -> Room:
    """Room of a model on `device` (cpu or cuda:N), of which `resident` bytes stay there; the rest goes elsewhere.

    Beside a CUDA device that is what other visible ones have free (`CUDA_VISIBLE_DEVICES` says which may be used), and
    then the machine's memory, of which `machine` bytes at the most; beside the CPU there are only the files.
    """
    if device == "cpu":
        return {"cpu": resident}
    import torch

    own = int(device.removeprefix("cuda:"))
    others: Room = {n: free_memory(f"cuda:{n}") for n in range(torch.cuda.device_count()) if n != own}
    shared = int(_CPU_SHARE * free_memory("cpu"))
    return {own: resident, **others, "cpu": shared if machine is None else min(machine, shared)}


def parameter_value(model: nn.Module, name: str) -> Tensor:
    """The value of a parameter, wherever it lies; on the device that its module runs on, or its own."""
    from accelerate.utils import align_module_device

    owner, _, own = name.rpartition(".")
    module = model.get_submodule(owner)
    with align_module_device(module):
        return module.get_parameter(own).detach()
