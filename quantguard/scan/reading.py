"""Counting the weights of tensors as fast as their file is read: pieces side by side in threads, a few at a time.

No tensor is held whole, but for one that is stored transposed: memory is that of the pieces under way.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Final

import torch
from torch import Tensor

from quantguard.checkpoint.files import open_regular
from quantguard.checkpoint.layout import Checkpoint
from quantguard.checkpoint.tensors import TORCH_DTYPES, read_rows, read_tensor
from quantguard.scan.histogram import Counts, Lattice, count, dither_noise, dithered, lattice_of, rows_at_once
from quantguard.scan.plan import Piece, Planned

_TASTE: Final = 128  # weights of each segment that tell how finely values are stored
_AHEAD: Final = 256  # pieces that may be under way
_TENSORS_AHEAD: Final = 16  # the counts of a tensor take a megabyte a thread

OnBytes = Callable[[int, str], None]


@dataclass(slots=True)
class Tally:
    """What was counted of one tensor."""

    planned: Planned
    lattice: Lattice
    sample: Tensor  # the sampled segments as stored, (segments, width); empty for what is no linear weight
    finite: bool = True
    parts: dict[int, Counts] = field(default_factory=dict)
    """Counts by the thread that made them, who adds to its own while they are in its cache."""

    def add(self, counts: Counts) -> None:
        mine = self.parts.get(threading.get_ident())
        if mine is None:
            self.parts[threading.get_ident()] = counts
        else:
            mine.add_(counts)

    @property
    def spread(self) -> Tensor:
        """The sample put back between the values that can be stored, float32; zeros stay."""
        values = dithered(self.sample.reshape(-1), dither_noise(self.lattice)).view(self.sample.shape)
        return torch.where(self.sample == 0, torch.zeros(()), values)

    @property
    def counts(self) -> Counts | None:
        """Of all threads, on the CPU; None for what is no linear weight."""
        parts = [part.cpu() for part in self.parts.values()]
        for other in parts[1:]:
            parts[0].add_(other)
        self.parts = {0: parts[0]} if parts else {}
        return parts[0] if parts else None


class _Thread(threading.local):
    """Made anew in each thread. No slots: those would be shared."""

    def __init__(self) -> None:
        self.files: dict[str, BinaryIO] = {}
        self.scratch = bytearray()


class Reader:
    """Open files of a checkpoint, one of each and one piece of memory for every thread that asks."""

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu") -> None:
        self.checkpoint = checkpoint
        self.device = device
        self._open = ExitStack()
        self._lock = threading.Lock()
        self.whole = threading.Lock()  # held with a whole tensor in memory: one at a time
        self._thread = _Thread()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def rows(self, planned: Planned, piece: Piece) -> Tensor:
        """Rows as stored, on the device; on the CPU they last until this thread reads again."""
        entry = planned.entry
        size = (entry.end - entry.begin) // entry.shape[0] * sum(len(rows) for rows in piece)
        if len(self._thread.scratch) < size:
            self._thread.scratch = bytearray(size)
        return read_rows(self.checkpoint, entry, self._file(entry.file), piece, self._thread.scratch).to(self.device)

    def segments(self, planned: Planned) -> Tensor:
        """The sampled segments, in the tensor's dtype, (segments, width), on the CPU."""
        if planned.transposed:
            with self.whole:
                stored = read_tensor(self.checkpoint, planned.entry)
                return torch.stack([stored[row : row + planned.width, column] for row, column in planned.segments])
        made = torch.empty(len(planned.segments), planned.width, dtype=TORCH_DTYPES[planned.entry.dtype])
        for place, (row, column) in zip(made, planned.segments, strict=True):
            place.copy_(self.rows(planned, (range(row, row + 1),))[0, column : column + planned.width])
        return made

    def _file(self, name: str) -> BinaryIO:
        files = self._thread.files
        if name not in files:
            stream = open_regular(self.checkpoint.root, name)
            with self._lock:
                self._open.enter_context(stream)
            files[name] = stream
        return files[name]


def tallies(
    reader: Reader, plan: Sequence[Planned], *, threads: int, on_bytes: OnBytes, spread: bool = False
) -> Iterator[Tally]:
    """The tensors of `plan` in order, each when all of it is counted.

    With `spread`, each weight is put at a random place of its step of INT8: see `count`.
    """
    noises: dict[Lattice, Tensor | None] = {}
    waiting: deque[tuple[Tally, bool, Future[tuple[bool, int]]]] = deque()

    def settle() -> Tally | None:
        tally, last, future = waiting.popleft()
        finite, size = future.result()
        tally.finite = tally.finite and finite
        on_bytes(size, tally.planned.entry.name)
        return tally if last else None

    with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
        try:
            for planned in plan:
                sample = reader.segments(planned) if planned.linear else torch.empty(0, 0)
                lattice = lattice_of(sample[:, :_TASTE])
                if lattice not in noises:
                    noises[lattice] = dither_noise(lattice, reader.device)
                tally = Tally(planned, lattice, sample)
                pieces = planned.pieces[:1] if planned.transposed else planned.pieces
                for place, piece in enumerate(pieces, 1):
                    task = pool.submit(_task, reader, tally, piece, noises[lattice], spread)
                    waiting.append((tally, place == len(pieces), task))
                    if len(waiting) > _AHEAD and (done := settle()):
                        yield done
                while sum(last for _, last, _ in waiting) > _TENSORS_AHEAD:
                    if done := settle():
                        yield done
            while waiting:
                if done := settle():
                    yield done
        finally:
            pool.shutdown(cancel_futures=True)


def _task(reader: Reader, tally: Tally, piece: Piece, noise: Tensor | None, spread: bool) -> tuple[bool, int]:
    """Count some rows; tell whether they are finite, and their bytes."""
    planned = tally.planned
    if planned.transposed:
        return _whole(reader, tally, noise, spread), planned.size
    stored = reader.rows(planned, piece)
    size = stored.numel() * stored.element_size()
    if not planned.linear:
        values = torch.view_as_real(stored) if stored.is_complex() else stored
        # The sum of finite values may overflow, which the caller finds out.
        return bool(torch.isfinite(values.float().sum())), size
    counts, finite = count(stored, noise, spread=spread)
    tally.add(counts)
    return finite, size


def _whole(reader: Reader, tally: Tally, noise: Tensor | None, spread: bool) -> bool:
    """Count a tensor stored (in, out), some output rows at a time."""
    all_finite = True
    with reader.whole:
        stored = read_tensor(reader.checkpoint, tally.planned.entry)
        several = rows_at_once(stored.shape[0])
        for start in range(0, stored.shape[1], several):
            piece = stored[:, start : start + several].T.contiguous().to(reader.device)
            counts, finite = count(piece, noise, spread=spread)
            tally.add(counts)
            all_finite = all_finite and finite
        del stored
    return all_finite
