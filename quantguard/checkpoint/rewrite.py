"""A copy of a checkpoint in which some tensors have other values and nothing else differs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import torch

from quantguard.checkpoint.files import PIECE, Kind, open_regular, quote, read_exactly, size_of, walk
from quantguard.checkpoint.layout import Checkpoint, TensorEntry, open_checkpoint
from quantguard.checkpoint.tensors import read_tensor
from quantguard.core.durable import sync_directory
from quantguard.core.errors import EvidenceError, UnsafeCheckpointError, UsageError
from quantguard.core.progress import Progress, silent

PARTIAL: Final = ".partial"
Replace = Callable[[TensorEntry, torch.Tensor], torch.Tensor]


def rewrite(
    checkpoint: Checkpoint,
    out: Path,
    replace: Replace,
    names: frozenset[str],
    *,
    progress: Progress = silent,
) -> Checkpoint:
    """Write `checkpoint` to the new directory `out`, with `replace(entry, tensor)` for the tensors in `names`.

    Every other file and every other tensor is copied byte for byte, headers and order too, so a replaced tensor must
    keep its dtype and shape. One tensor is held at a time. It is written to `out` + ".partial", flushed to the disk
    and renamed: `out` appears whole or not at all. What an earlier, killed run left under that name is removed.

    Returns:
        the new checkpoint, opened and checked.

    Raises:
        ValueError: `names` holds a tensor that is not there; or a replacement has another dtype or shape.
        UsageError: `out` exists or lies inside the checkpoint, or something else stands at `out` + ".partial".
        UnsafeCheckpointError: the directory holds a symbolic link or special file.
        CheckpointError: a file of the checkpoint cannot be read.
        EvidenceError: the copy cannot be written, for example because the disk is full; nothing is left behind.
    """
    unknown = sorted(names - {entry.name for entry in checkpoint.tensors})
    if unknown:
        raise ValueError(f"the checkpoint has no tensor {quote(unknown[0])}")
    files = _regular_files(checkpoint.root)
    unfinished = _prepare(checkpoint.root, out, files)
    try:
        with _translated(out):
            unfinished.mkdir(parents=True)
            for done, name in enumerate(files):
                progress("rewrite", done, len(files), "")
                _copy_file(checkpoint, unfinished / name, name, replace, names)
            unfinished.replace(out)
            sync_directory(out.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    progress("rewrite", len(files), len(files), "")
    return open_checkpoint(out)


@contextmanager
def _translated(out: Path) -> Iterator[None]:
    """Reading translates its own OSErrors, so those that come this far are about writing."""
    try:
        yield
    except OSError as error:
        raise EvidenceError(
            f"the new checkpoint cannot be written: {error.strerror or error}",
            path=out,
            remedy="free space there and run again",
        ) from error


def _regular_files(root: Path) -> tuple[str, ...]:
    items = tuple(walk(root))
    for item in items:
        if item.kind is not Kind.FILE:
            raise UnsafeCheckpointError(
                f"{quote(item.path)} is a {item.kind.value}", path=root, remedy="register copies of the files"
            )
    return tuple(item.path for item in items)


def _prepare(root: Path, out: Path, files: tuple[str, ...]) -> Path:
    """The name to write under, cleared of what a killed run left. Only a part of this very copy is ever removed."""
    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError("lies inside the checkpoint that is copied", path=out, remedy="choose another directory")
    if os.path.lexists(out):
        raise UsageError("exists already", path=out, remedy="choose another directory or remove it")
    unfinished = out.with_name(out.name + PARTIAL)
    if not os.path.lexists(unfinished):
        return unfinished
    if unfinished.is_symlink() or not unfinished.is_dir() or not _paths(unfinished) <= set(files):
        raise UsageError("is in the way and is no part of this copy", path=unfinished, remedy="remove it")
    with _translated(out):
        shutil.rmtree(unfinished)
    return unfinished


def _paths(directory: Path) -> set[str]:
    return {item.path for item in walk(directory)}


def _copy_file(checkpoint: Checkpoint, target: Path, name: str, replace: Replace, names: frozenset[str]) -> None:
    shard = next((shard for shard in checkpoint.shards if shard.file == name), None)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(checkpoint.root, name) as source, target.open("xb") as sink:
        copy = partial(_copy_range, source, sink, root=checkpoint.root, name=name)
        reached, end = 0, size_of(source) if shard is None else shard.size
        for entry in () if shard is None else shard.tensors:
            if entry.name in names:
                copy(begin=reached, end=entry.begin)
                _write_tensor(checkpoint, entry, sink, replace)
                reached = entry.end
        copy(begin=reached, end=end)
        sink.flush()
        os.fsync(sink.fileno())


def _copy_range(source: BinaryIO, sink: BinaryIO, *, begin: int, end: int, root: Path, name: str) -> None:
    """Copy the bytes [begin, end) of the file `name` in pieces."""
    for start in range(begin, end, PIECE):
        piece = bytearray(min(PIECE, end - start))
        read_exactly(source, start, memoryview(piece), root=root, name=name)
        sink.write(piece)


def _write_tensor(checkpoint: Checkpoint, entry: TensorEntry, sink: BinaryIO, replace: Replace) -> None:
    original = read_tensor(checkpoint, entry)
    dtype, shape = original.dtype, original.shape
    replaced = replace(entry, original)
    if replaced.dtype != dtype or replaced.shape != shape:
        raise ValueError(
            f"tensor {quote(entry.name)} is {dtype} {tuple(shape)}; "
            f"its replacement is {replaced.dtype} {tuple(replaced.shape)}"
        )
    raw = replaced.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # (bytes,)
    sink.write(raw.numpy().data)
