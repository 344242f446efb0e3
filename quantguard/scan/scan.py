"""Scan a checkpoint for weights prepared for a quantizer: tensors on disk in, findings out. Never builds the model."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from quantguard.checkpoint.consistency import inconsistent
from quantguard.checkpoint.files import quote
from quantguard.checkpoint.layout import Checkpoint, open_checkpoint
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import CheckpointError
from quantguard.core.finding import Finding, Severity
from quantguard.core.layer import LayerScan
from quantguard.core.progress import Progress, silent
from quantguard.scan.judge import findings, judge, layers
from quantguard.scan.plan import Effort, Planned, planned
from quantguard.scan.survey import Survey, survey
from quantguard.scan.workers import processes_for, survey_in_processes

__all__ = ["Effort", "Scan", "scan"]

_TESTABLE: Final = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class Scan:
    findings: tuple[Finding, ...]  # worst first
    tensors: int  # linear weights tested
    weights: int  # elements of them that were looked at
    layers: tuple[LayerScan, ...] = ()  # what was measured, worst first


def scan(
    directory: Path,
    *,
    device: str = "cpu",
    progress: Progress = silent,
    effort: Effort = Effort.FULL,
    seed: int | None = None,
    processes: int | None = None,
) -> Scan:
    """Every linear weight on every grid, and the files that must not be there.

    Args:
        directory: of the model.
        device: where weights are counted.
        progress: told of the bytes read.
        effort: quick looks at one in 128 rows of each weight, on bitsandbytes' grids (docs/scan.md: what it sees).
        seed: of what is sampled; None draws one, since an attacker who knew it would prepare the others.
        processes: that read shards side by side; None takes as many as shards and cores allow.

    Raises:
        CheckpointError: it cannot be read, holds NaN or infinity, or has no linear weight. Where forbidden files were
            found, they are returned instead and the weights are not opened.
    """
    unsafe = unsafe_files(directory)
    if refused := _refused(unsafe):
        return Scan(refused, 0, 0)
    checkpoint = open_checkpoint(directory)
    unsafe += inconsistent(checkpoint)
    if refused := _refused(unsafe):
        return Scan(refused, 0, 0)
    _require_testable(checkpoint)
    plan = planned(checkpoint, effort, secrets.randbits(63) if seed is None else seed)
    linear = [one for one in plan if one.linear]
    if not linear:
        raise CheckpointError(
            "no linear weight to scan", path=directory, remedy="is this a language model's directory?"
        )
    with _single_threaded() as threads:
        measured = _survey(checkpoint, plan, device, processes, _Bytes(plan, progress), threads=threads)
        rows = judge(measured)
    found = (*findings(measured, rows), *unsafe)
    return Scan(_worst_first(found), len(linear), sum(one.weights for one in linear), layers(rows))


class _Bytes:
    """Progress in bytes: the sum of what was read."""

    def __init__(self, plan: Sequence[Planned], progress: Progress) -> None:
        self._total = max(1, sum(one.size for one in plan))
        self._done = 0
        self._progress = progress

    def __call__(self, size: int, name: str) -> None:
        self._done = min(self._total, self._done + size)
        self._progress("scan, bytes", self._done, self._total, name)


@contextmanager
def _single_threaded() -> Iterator[int]:
    """Within it each operation has one thread; how many torch was set to, for work that is done side by side.

    Pieces are counted side by side, and what follows is too short to be divided.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _survey(
    checkpoint: Checkpoint,
    plan: Sequence[Planned],
    device: str,
    processes: int | None,
    on_bytes: _Bytes,
    *,
    threads: int,
) -> Survey:
    several = processes_for(plan, os.cpu_count() or 1) if processes is None else processes
    if several > 1 and device == "cpu":
        each = max(1, threads // several)
        return survey_in_processes(checkpoint, plan, processes=several, threads=each, device=device, on_bytes=on_bytes)
    return survey(checkpoint, plan, device=device, threads=threads, on_bytes=on_bytes)


def _require_testable(checkpoint: Checkpoint) -> None:
    """Loaders cast other types to the model's own, after which they are weights as any other, but never tested ones."""
    for entry in checkpoint.tensors:
        matrix = len(entry.shape) == 2 and min(entry.shape) > 1
        if matrix and entry.name.endswith(".weight") and entry.dtype not in _TESTABLE:
            raise CheckpointError(
                f"{quote(entry.name)} is {entry.dtype}, which no grid is defined for",
                path=checkpoint.root,
                remedy="store weights as float32, float16 or bfloat16",
            )


def _refused(unsafe: Sequence[Finding]) -> tuple[Finding, ...]:
    """What keeps the weights from being opened."""
    return _worst_first([finding for finding in unsafe if finding.severity.at_least(Severity.HIGH)])


def _worst_first(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda f: (-f.severity.rank, -(f.share or 0.0), -(f.effect or 0.0), f.where)))
