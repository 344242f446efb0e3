"""Threads for models too small to share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import nn

_SMALL: Final = 20_000_000  # parameters


@contextmanager
def threads_for(model: nn.Module, device: str) -> Iterator[None]:
    """Within it a small model on a CPU computes on one thread; others as torch is set.

    The work of one step is then too short to be divided. Measured on the canary (0.9 million parameters, 200 answers of
    16 tokens, batches of 32, two cores with other work on them): 0.27 s on one thread, 5.7 s on two.
    """
    import torch

    if device != "cpu" or sum(p.numel() for p in model.parameters()) > _SMALL:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
