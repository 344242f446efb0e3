"""Files that are not what they seem: archives that expand, links, pipes, files that shrink, files that are all hole."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import resource
import socket
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from quantguard.checkpoint.admit import admit
from quantguard.checkpoint.layout import SINGLE, open_checkpoint
from quantguard.checkpoint.tensors import stream_tensors
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import CheckpointError, HeaderError, QuantGuardError, UnsafeCheckpointError
from quantguard.core.finding import Severity
from quantguard.scan.scan import scan
from tests.checkpoint.build import entry, safetensors_bytes, tensors, write_model
from tests.fuzz.law import judge

MIB = 1024 * 1024
GIB = 1024 * MIB
EXPANDED = 128 * MIB  # what each bomb would inflate to


@contextmanager
def frugal(*, seconds: float, memory: int) -> Iterator[None]:
    """Within this time, and within so many bytes of Python's own memory, tensors' buffers included."""
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        yield
        took, peak = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < seconds
    assert peak < memory


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as inside:
        for _ in range(EXPANDED // MIB):
            inside.write(bytes(MIB))
    return buffer.getvalue()


def _array() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(EXPANDED, np.uint8))
    return buffer.getvalue()


def _many(compress: Callable[[bytes], bytes]) -> bytes:
    """A stream of many, as all of these formats allow: each expands to 1 MiB."""
    return compress(bytes(MIB)) * (EXPANDED // MIB)


BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "zip": ("weights", _zipped, "pickle"),
    "zip that says it is the model": (SINGLE, _zipped, "pickle"),
    "npz": ("embeddings", _array, "pickle"),  # a zip as torch.save writes them, by its first bytes
    "npz by name": ("embeddings.npz", _array, "archive"),
    "gzip": ("tokenizer.json", lambda: _many(gzip.compress), "archive"),
    "bzip2": ("vocab.txt", lambda: _many(bz2.compress), "archive"),
    "xz": ("config", lambda: _many(lzma.compress), "archive"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_an_archive_is_known_by_its_first_bytes_and_never_inflated(tmp_path: Path, case: str) -> None:
    name, made, rule = BOMBS[case]
    directory = write_model(tmp_path / "m")
    bomb = made()
    assert len(bomb) < EXPANDED / 100
    (directory / name).write_bytes(bomb)
    with frugal(seconds=2, memory=2 * MIB):
        found = {finding.rule for finding in unsafe_files(directory) if finding.where == name}
        assert f"checkpoint.{rule}" in found
        assert scan(directory).tensors == 0
        with pytest.raises(UnsafeCheckpointError):
            admit(directory)


def test_compressed_bytes_under_an_honest_name_are_no_model(tmp_path: Path) -> None:
    """zlib has no magic number that could be told from text: it is refused as what it is not."""
    directory = write_model(tmp_path / "m")
    (directory / "config.json").write_bytes(zlib.compress(bytes(64 * MIB)))
    with frugal(seconds=2, memory=2 * MIB), pytest.raises(CheckpointError, match=r"config\.json.*not valid JSON"):
        open_checkpoint(directory)


def _replaced(directory: Path, name: str) -> Path:
    (directory / name).unlink(missing_ok=True)
    return directory / name


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero, which never ends


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "device": _device,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to the directory": lambda path: path.symlink_to("."),
    "link out": lambda path: path.symlink_to("/etc/passwd"),
    "folder": lambda path: path.mkdir(),
}
READ = ("config.json", SINGLE, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "MLmodel")


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_place_of_a_file_is_refused_and_never_waited_for(tmp_path: Path, kind: str, name: str) -> None:
    directory = write_model(tmp_path / "m")
    KINDS[kind](_replaced(directory, name))

    def read(root: Path) -> str:
        found = unsafe_files(root)
        refused = any(finding.severity.at_least(Severity.HIGH) for finding in found)
        assert refused or kind == "folder"
        open_checkpoint(root)
        return "accepted"

    outcome = judge(directory, read)
    assert outcome.breach == ""
    assert outcome.said.endswith("Error") or name not in ("config.json", SINGLE)


def test_links_that_lead_into_each_other_are_found_once(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    (directory / "a").mkdir()
    for path, target in (("a/up", ".."), ("a/b", "../b"), ("b", "a/b"), ("c", "c"), ("long", "x/" * 2000)):
        (directory / path).symlink_to(target)
    found = unsafe_files(directory)
    assert [f.where for f in found if f.rule == "checkpoint.symlink"] == ["b", "c", "long", "a/b", "a/up"]


def test_a_second_name_of_a_file_is_a_file(tmp_path: Path) -> None:
    """Hugging Face's caches are made of such; their bytes are measured as any other's."""
    directory = write_model(tmp_path / "m")
    (directory / SINGLE).rename(tmp_path / "elsewhere")
    (directory / SINGLE).hardlink_to(tmp_path / "elsewhere")
    assert len(admit(directory).tensors) == len(tensors())


NAMES = ("a\nb", "a\rb.json", "\x1b[2Jx", "\x07", "\u202egnp.exe", "\u2028", "a\x7f", os.fsdecode(b"\xff\xfe.json"))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_made_to_deceive_a_terminal_is_refused_and_escaped(tmp_path: Path, name: str) -> None:
    directory = write_model(tmp_path / "m")
    (directory / name).write_bytes(b"{}")
    found = [finding for finding in unsafe_files(directory) if finding.rule == "checkpoint.file_name"]
    assert len(found) == 1
    assert found[0].where.isprintable()
    with pytest.raises(UnsafeCheckpointError) as caught:
        admit(directory)
    assert str(caught.value).isprintable()


def test_a_file_that_shrinks_between_header_and_tensor_is_refused(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    for kept in (-1, 0, 100):
        write_model(directory)
        checkpoint = open_checkpoint(directory)
        stream = stream_tensors(checkpoint)
        next(stream)
        size = checkpoint.shards[0].size
        os.truncate(directory / SINGLE, size + kept if kept < 0 else kept)
        with pytest.raises(CheckpointError, match="truncated or changed"):
            list(stream)


def test_a_file_that_shrinks_while_the_scan_reads_it_ends_the_scan(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")

    def shrink(stage: str, done: int, total: int, detail: str = "") -> None:
        os.truncate(directory / SINGLE, 900)  # at the first word of progress: readers run ahead of the later ones

    with pytest.raises(CheckpointError):
        scan(directory, progress=shrink)


def _sparse(directory: Path, header: bytes, size: int) -> None:
    with (directory / SINGLE).open("wb") as file:
        file.write(header)
        file.truncate(size)


def test_a_declared_header_of_two_gigabytes_is_not_read(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    declared = (2 * GIB).to_bytes(8, "little") + b"{"
    for size in (9, 100, 2 * GIB + 8, 3 * GIB):
        _sparse(directory, declared, size)
        with frugal(seconds=2, memory=2 * MIB):
            with pytest.raises(HeaderError, match="declares a header of 2147483648 bytes"):
                open_checkpoint(directory)
            unsafe_files(directory)


def test_a_huge_file_is_read_one_tensor_at_a_time(tmp_path: Path) -> None:
    """4 GiB of holes: 256 tensors of 16 MiB each, of which the machine needs to hold two."""
    directory = write_model(tmp_path / "m")
    each, count = 16 * MIB, 256
    header = {f"l.{n}.weight": entry("F32", [2048, 2048], n * each, (n + 1) * each) for n in range(count)}
    raw = safetensors_bytes(header)
    _sparse(directory, raw, len(raw) + each * count)
    with frugal(seconds=2, memory=2 * MIB):
        checkpoint = open_checkpoint(directory)
        assert unsafe_files(directory) == ()
    with frugal(seconds=60, memory=3 * each):
        for number, (found, tensor) in enumerate(stream_tensors(checkpoint), 1):
            assert tensor.numel() == found.elements
            if number == 20:
                break


def test_a_tensor_larger_than_memory_cannot_be_told(tmp_path: Path) -> None:
    """A hole costs nothing on disk: 64 GiB here, in one tensor, behind a header that is right."""
    directory = write_model(tmp_path / "m")
    raw = safetensors_bytes({"l.weight": entry("F32", [2**14, 2**20], 0, 64 * GIB)})
    _sparse(directory, raw, len(raw) + 64 * GIB)
    # Some machines promise memory that they do not have: this process is not promised any more.
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = 4096 * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (now + 4 * GIB, before[1]))
    try:
        with pytest.raises(CheckpointError, match="more than there is memory"):
            list(stream_tensors(open_checkpoint(directory)))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


SMALL: tuple[list[int], ...] = ([1], [1, 1], [], [1] * 32, [1, 7], [7, 1], [2, 2], [1, 1, 1], [3, 1, 2])


@pytest.mark.parametrize("shape", SMALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_smallest_tensors_are_scanned_beside_an_honest_one(
    tmp_path: Path, shape: list[int], dtype: torch.dtype
) -> None:
    odd = torch.full(shape, 0.5).to(dtype)
    directory = write_model(tmp_path / "m", {"odd.weight": odd, "honest.weight": tensors()["lm_head.weight"].to(dtype)})
    outcome = judge(directory, lambda root: str(scan(root).tensors), seconds=20)
    assert outcome.breach == ""
    assert outcome.said == ("2" if len(shape) == 2 and min(shape) > 1 else "1")
    alone = write_model(tmp_path / "alone", {"odd.weight": odd})
    assert judge(alone, lambda root: str(scan(root).tensors), seconds=20).breach == ""


@pytest.mark.parametrize("shape", [[0], [0, 8], [8, 0], [0, 0], [2**62, 0], [0, 2**64 - 1]], ids=str)
def test_a_tensor_without_rows_or_columns_is_refused_by_name(tmp_path: Path, shape: list[int]) -> None:
    directory = write_model(tmp_path / "m")
    assert math.prod(shape) == 0
    (directory / SINGLE).write_bytes(safetensors_bytes({"empty.weight": entry("F32", shape, 0, 0)}))
    for read in (open_checkpoint, scan):
        with pytest.raises(QuantGuardError, match=r"'empty\.weight': it has no elements"):
            read(directory)
