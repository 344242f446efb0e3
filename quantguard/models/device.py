"""Where a model runs, and with which libraries."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Final

from quantguard.core.errors import UsageError

_LIBRARIES: Final = ("accelerate", "bitsandbytes", "safetensors", "tokenizers", "torch", "transformers")


def resolve_device(text: str) -> str:
    """`cpu` or `cuda:N` for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: another word, or a CUDA device that is not there.
    """
    import torch

    if text == "cpu" or (text == "auto" and not torch.cuda.is_available()):
        return "cpu"
    match = re.fullmatch(r"auto|cuda(?::(?P<index>[0-9]{1,3}))?", text)
    if match is None:
        raise UsageError(f"{text!r} is no device", remedy="use auto, cpu, cuda or cuda:N")
    index = int(match["index"] or 0)
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise UsageError(f"there is no device {text} here", remedy="use --device cpu, or install a CUDA build of torch")
    return f"cuda:{index}"


def device_label(device: str) -> str:
    """The device with its product name, e.g. `cuda:0 NVIDIA H200`; `cpu` stays `cpu`."""
    import torch

    return f"{device} {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else device


def library_versions(extra: tuple[str, ...] = ()) -> tuple[tuple[str, str], ...]:
    """(distribution, version) of what loads and quantizes a model, and of `extra`, sorted; absent ones left out."""
    found = []
    for name in sorted({*_LIBRARIES, *extra}):
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)
