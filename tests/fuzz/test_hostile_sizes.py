"""Files that are right or nearly so, and as large or as deep as they can be. Bounds are of time and of memory."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quantguard.checkpoint.header import MAX_TENSORS
from quantguard.checkpoint.layout import CONFIG, INDEX, MAX_SHARDS, SINGLE, linear_weights, open_checkpoint
from quantguard.checkpoint.orders import MAX_JSON, MAX_MLMODEL
from quantguard.checkpoint.tensors import stream_tensors
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import CheckpointError, HeaderError, ShardIndexError
from quantguard.scan.scan import scan
from tests.checkpoint.build import entry, safetensors_bytes, write_index, write_model
from tests.fuzz.law import judge
from tests.fuzz.soak import warm_up
from tests.fuzz.tree import Disk

MIB = 1024 * 1024
PATIENCE = 20.0  # seconds for what takes two at most on an idle machine


@contextmanager
def resident(limit: int) -> Iterator[None]:
    """The process grows by no more than `limit` bytes at any moment (Linux counts that; elsewhere nothing is said)."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not os.access(reset, os.W_OK):
        yield
        return

    def read(key: str) -> int:
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024

    reset.write_text("5", encoding="ascii")  # the highest so far becomes what it is now
    before = read("VmRSS:")
    yield
    assert read("VmHWM:") - before < limit


def _header(count: int, shape: list[int]) -> bytes:
    size = 4 * math.prod(shape)
    return safetensors_bytes({f"l.{n}.weight": entry("F32", shape, n * size, (n + 1) * size) for n in range(count)})


@pytest.mark.parametrize("shape", [[2], [2, 2]], ids=str)
def test_a_hundred_thousand_tensors_are_opened_and_read(tmp_path: Path, shape: list[int]) -> None:
    directory = write_model(tmp_path / "m")
    elements = MAX_TENSORS * math.prod(shape)
    (directory / SINGLE).write_bytes(_header(MAX_TENSORS, shape) + bytes(4 * elements))
    begin = time.perf_counter()
    with resident(600 * MIB):
        checkpoint = open_checkpoint(directory)
        assert len(linear_weights(checkpoint)) == (MAX_TENSORS if len(shape) > 1 else 0)
        assert unsafe_files(directory) == ()
        assert sum(tensor.numel() for _, tensor in stream_tensors(checkpoint)) == elements
    assert time.perf_counter() - begin < 3 * PATIENCE


def test_one_tensor_more_than_a_hundred_thousand_is_refused(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    (directory / SINGLE).write_bytes(_header(MAX_TENSORS + 1, [1]) + bytes(4 * MAX_TENSORS + 4))
    with pytest.raises(HeaderError, match="100001 tensors; at most 100000"):
        open_checkpoint(directory)


def _many_norms(directory: Path) -> None:
    """One weight to scan among a hundred thousand tensors that are none."""
    header = {f"l.{n}.bias": entry("F32", [1], 4 * n, 4 * n + 4) for n in range(MAX_TENSORS - 1)}
    header["l.weight"] = entry("F32", [8, 8], 4 * MAX_TENSORS - 4, 4 * MAX_TENSORS + 252)
    (directory / SINGLE).write_bytes(safetensors_bytes(header) + b"\0\0\x80\x3f" * (MAX_TENSORS + 63))


def _many_weights(directory: Path) -> None:
    """As many weights as a model of a hundred layers has, each the smallest there is."""
    (directory / SINGLE).write_bytes(_header(1_000, [2, 2]) + b"\0\0\x80\x3f" * 4_000)


@pytest.mark.parametrize(("make", "weights"), [(_many_norms, 1), (_many_weights, 1_000)])
def test_many_tensors_are_scanned_in_bounded_time(tmp_path: Path, make: Callable[[Path], None], weights: int) -> None:
    directory = write_model(tmp_path / "m")
    make(directory)
    begin = time.perf_counter()
    with resident(600 * MIB):
        assert scan(directory).tensors == weights
    assert time.perf_counter() - begin < 3 * PATIENCE


def test_an_index_of_a_hundred_thousand_tensors_is_read(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    raw = _header(MAX_TENSORS, [1])
    (directory / SINGLE).unlink()
    file = "model-00001-of-00001.safetensors"
    (directory / file).write_bytes(raw + bytes(4 * MAX_TENSORS))
    write_index(directory, {f"l.{n}.weight": file for n in range(MAX_TENSORS)})
    begin = time.perf_counter()
    with resident(600 * MIB):
        assert len(open_checkpoint(directory).tensors) == MAX_TENSORS
        write_index(directory, {f"l.{n}.weight": file for n in range(MAX_TENSORS + 1)})
        with pytest.raises(ShardIndexError, match=r"'l\.100000\.weight' is not in"):
            open_checkpoint(directory)
    assert time.perf_counter() - begin < 2 * PATIENCE


@pytest.mark.parametrize("there", [True, False])
def test_more_shards_than_any_model_has_are_refused_before_one_is_opened(tmp_path: Path, there: bool) -> None:
    directory = write_model(tmp_path / "m")
    (directory / SINGLE).unlink()
    files = [f"model-{n:05}.safetensors" for n in range(MAX_SHARDS + 1)]
    if there:
        for file in files:
            os.mknod(directory / file)
    write_index(directory, {f"t{n}": file for n, file in enumerate(files)})
    begin = time.perf_counter()
    with pytest.raises(ShardIndexError, match="names 5001 files; at most 5000"):
        open_checkpoint(directory)
    assert time.perf_counter() - begin < PATIENCE


def test_shards_that_hold_more_than_the_index_names_are_not_all_read(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    (directory / SINGLE).unlink()
    files = [f"model-{n:05}.safetensors" for n in range(40)]
    (directory / files[0]).write_bytes(_header(MAX_TENSORS, [1]) + bytes(4 * MAX_TENSORS))
    for file in files[1:]:
        (directory / file).hardlink_to(directory / files[0])
    write_index(directory, {f"t{n}": file for n, file in enumerate(files)})
    with resident(600 * MIB), pytest.raises(ShardIndexError, match="fewer than the 200000 tensors"):
        open_checkpoint(directory)


def _filled(begin: bytes, piece: bytes, end: bytes, size: int = MAX_JSON) -> bytes:
    return begin + piece * ((size - len(begin) - len(end)) // len(piece)) + end


_INNER = b'{"a":' + b"[" + b",".join([b"1"] * 500_000) + b"]}"
JSONS: dict[str, Callable[[], bytes]] = {
    "one string": lambda: _filled(b'{"model_type":"', b"x", b'"}'),
    "one string of escapes": lambda: _filled(b'{"model_type":"', b"\\ud800", b'"}'),
    "one key": lambda: _filled(b'{"', b"k", b'":1}'),
    "lists": lambda: _filled(b'{"a":[[]', b",[]", b"]}"),
    "objects": lambda: _filled(b'{"a":[{}', b',{"":1}', b"]}"),
    "members": lambda: b"{" + b",".join(b'"%d":1' % n for n in range(700_000)) + b"}",
    "orders": lambda: _filled(b'{"a":[{}', b',{"auto_map":1}', b"]}"),
    "numbers": lambda: _filled(b'{"a":[1', b",1e999", b"]}"),
    "a million digits": lambda: b'{"vocab_size":' + b"9" * 1_000_000 + b"}",
    "a million digits after the point": lambda: b'{"vocab_size":0.' + b"9" * 1_000_000 + b"}",
    "an exponent of a million digits": lambda: b'{"vocab_size":1e' + b"9" * 1_000_000 + b"}",
    "deep lists": lambda: b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "deep objects": lambda: b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000,
    "as deep as is read": lambda: b'{"attn_implementation":' * 980 + b"1" + b"}" * 980,
    "kernels in kernels": lambda: (
        b'{"attn_implementation":' * 900 + _INNER.replace(b"[", b'{"b":[') + b"}" + b"}" * 900
    ),
    "kernels in kernels around many": lambda: (
        b'{"attn_implementation":' * 900 + b"{" + b",".join(b'"%d":1' % n for n in range(400_000)) + b"}" + b"}" * 900
    ),
    "templates in templates": lambda: b'{"chat_template":' * 900 + _INNER + b"}" * 900,
    "a million templates": lambda: b'{"chat_template":[' + b",".join(b'"{{%d}}"' % n for n in range(600_000)) + b"]}",
    "a dense template": lambda: json.dumps({"chat_template": "{{" + "a~" * 200 + "a}}" * 600}).encode(),
    "a template of digits": lambda: json.dumps({"chat_template": "{{" + "1" * 60_000 + "}}"}).encode(),
    "a deep template": lambda: json.dumps({"chat_template": "{{" + "(" * 30_000}).encode(),
    "one byte too many": lambda: _filled(b'{"a":"', b"x", b'"}', MAX_JSON) + b" " * 16,
}


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    warm_up(Disk(tmp_path_factory.mktemp("warm") / "model"))


@pytest.mark.parametrize("name", [CONFIG, "tokenizer_config.json"])
@pytest.mark.parametrize("case", JSONS)
def test_json_of_eight_megabytes_ends_in_time_whatever_is_in_it(tmp_path: Path, case: str, name: str) -> None:
    directory = write_model(tmp_path / "m")
    (directory / name).write_bytes(JSONS[case]())

    def read(root: Path) -> str:
        unsafe_files(root)
        return str(len(linear_weights(open_checkpoint(root))))

    with resident(900 * MIB):
        assert judge(directory, read, seconds=PATIENCE).breach == ""


def test_an_integer_of_a_million_digits_is_refused_by_name(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    (directory / CONFIG).write_bytes(JSONS["a million digits"]())
    with pytest.raises(CheckpointError, match=r"config\.json' is not valid JSON"):
        open_checkpoint(directory)
    (directory / CONFIG).write_text('{"model_type": "llama"}')
    raw = b'{"t": {"dtype": "U8", "shape": [' + b"9" * 1_000_000 + b'], "data_offsets": [0, 1]}}'
    (directory / SINGLE).write_bytes(safetensors_bytes(raw, b"\0"))
    with pytest.raises(HeaderError, match="unsigned 64-bit"):
        open_checkpoint(directory)


def test_an_index_as_large_as_it_may_be_is_refused_in_time(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    for begin, piece in ((b'{"weight_map":[[]', b",[]"), (b'{"weight_map":[{}', b',{"":1}')):
        (directory / INDEX).write_bytes(_filled(begin, piece, b"]}", 16 * MIB))
        with resident(900 * MIB):
            outcome = judge(directory, lambda root: str(len(open_checkpoint(root).tensors)), seconds=PATIENCE)
        assert (outcome.said, outcome.breach) == ("ShardIndexError", "")


def _laughs(lines: int) -> bytes:
    """The billion laughs: each line is nine times the one before."""
    first = b"a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
    return first + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, lines))


YAMLS: dict[str, Callable[[], bytes]] = {
    "laughs": lambda: _laughs(60),
    "laughs in keys": lambda: b"a: &a [x]\n" + b"? *a\n: 1\n" * 1000,
    "merged": lambda: b"a: &a {loader_module: evil}\n" + b"b: {<<: [*a, *a]}\n" * 1000,
    "around itself": lambda: b"a: &a [*a]\n",
    "flow": lambda: _filled(b"[", b"a,", b"]", MAX_MLMODEL),
    "flow mapping": lambda: _filled(b"{", b"a:,", b"}", MAX_MLMODEL),
    "block": lambda: _filled(b"", b"a: b\n", b"", MAX_MLMODEL),
    "questions": lambda: _filled(b"", b"? a\n", b"", MAX_MLMODEL),
    "anchors": lambda: b"".join(b"- &a%d x\n" % n for n in range(MAX_MLMODEL // 12)),
    "aliases": lambda: _filled(b"- &a x\n", b"- *a\n", b"", MAX_MLMODEL),
    "dashes": lambda: _filled(b"", b"- ", b"", MAX_MLMODEL),
    "deep flow": lambda: b"[" * MAX_MLMODEL,
    "spaces": lambda: b" " * (MAX_MLMODEL - 1) + b"a",
    "tags": lambda: _filled(b"!<", b"%41", b"> a", MAX_MLMODEL),
    "version": lambda: b"%YAML " + b"1" * 100_000 + b".1\n--- a\n",
    "beyond Unicode": lambda: b'a: "\\UFFFFFFFF"\n',
    "object": lambda: b"!!python/object/apply:os.system ['touch /tmp/x']",
    "one byte too many": lambda: b"#" * (MAX_MLMODEL + 1),
}


@pytest.mark.parametrize("case", YAMLS)
def test_yaml_ends_in_time_whatever_is_in_it(tmp_path: Path, case: str) -> None:
    directory = write_model(tmp_path / "m")
    (directory / "MLmodel").write_bytes(YAMLS[case]())
    with resident(300 * MIB):
        outcome = judge(directory, lambda root: ",".join(f.rule for f in unsafe_files(root)), seconds=PATIENCE)
    assert outcome.breach == ""
