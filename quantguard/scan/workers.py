"""Shards side by side: a process for some files each, where there are several and cores for them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Final

from quantguard.checkpoint.layout import Checkpoint, open_checkpoint
from quantguard.core.errors import CheckpointError
from quantguard.scan.plan import Planned, shares
from quantguard.scan.reading import OnBytes
from quantguard.scan.survey import Survey, survey

CORES_EACH: Final = 4  # threads of one process share its interpreter: more of them wait for one another
WORTH: Final = 4 << 30  # bytes for which starting a process, some seconds, pays
_LOOK: Final = 0.2  # seconds between two looks at how far the others are

_read: Synchronized[int] | None = None


def processes_for(plan: Sequence[Planned], cores: int) -> int:
    """How many processes a scan of `plan` is worth, at least 1."""
    files = len({planned.entry.file for planned in plan})
    return max(1, min(files, cores // CORES_EACH, sum(planned.size for planned in plan) // WORTH))


def survey_in_processes(
    checkpoint: Checkpoint, plan: Sequence[Planned], *, processes: int, threads: int, device: str, on_bytes: OnBytes
) -> Survey:
    """As `survey`, with the files divided among `processes` of `threads` each.

    Raises:
        NonFiniteWeightsError, CheckpointError: as `survey`; also where a process was killed.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    counter = context.Value("Q", 0)
    parts = shares(plan, processes)
    made = Survey()
    with ProcessPoolExecutor(len(parts), context, initializer=_begin, initargs=(counter,)) as pool:
        pending = [pool.submit(_part, checkpoint.root, part, device, threads) for part in parts]
        try:
            _watch(pending, counter, on_bytes)
            for future in pending:
                made.add(future.result())
        except BrokenProcessPool as error:
            raise CheckpointError(
                "a scanning process was killed", path=checkpoint.root, remedy="free memory and run again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    order = {planned.entry.name: place for place, planned in enumerate(plan)}
    made.weights.sort(key=lambda weight: order[weight.name])
    return made


def _begin(counter: Synchronized[int]) -> None:
    global _read  # noqa: PLW0603  (the only way to hand a counter to a process of a pool)
    _read = counter


def _part(root: Path, part: Sequence[Planned], device: str, threads: int) -> Survey:
    return survey(open_checkpoint(root), part, device=device, threads=threads, on_bytes=_count)


def _count(size: int, _name: str) -> None:
    if _read is not None:
        with _read.get_lock():
            _read.value += size


def _watch(pending: Sequence[Future[Survey]], counter: Synchronized[int], on_bytes: OnBytes) -> None:
    """Report bytes until all are done or one has failed."""
    reported = 0
    while True:
        done = all(future.done() for future in pending)
        failed = any(future.done() and future.exception() for future in pending)
        now = counter.value
        if now > reported:
            on_bytes(now - reported, f"{len(pending)} processes")
            reported = now
        if done or failed:
            return
        time.sleep(_LOOK)
