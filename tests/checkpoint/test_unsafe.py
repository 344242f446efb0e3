"""What must never be loaded is found by kind, name, content and order, and keeps the directory out."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantguard.checkpoint.admit import admit
from quantguard.checkpoint.files import MAX_FILES
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import CheckpointError, HeaderError, NothingToGateError, UnsafeCheckpointError, UsageError
from quantguard.core.finding import Severity
from quantguard.core.verdict import ExitCode
from tests.checkpoint.build import write_model
from tests.tiny import write_model as write_tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m")


def found(directory: Path) -> set[tuple[str, str, Severity]]:
    return {
        (finding.rule.removeprefix("checkpoint."), finding.where, finding.severity)
        for finding in unsafe_files(directory)
    }


def saved(value: object, *, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("evil.py"))
    return buffer.getvalue()


def array_of(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([value], dtype=object), allow_pickle=True)
    return buffer.getvalue()


FORBIDDEN: dict[str, tuple[str, bytes, str]] = {
    "torch weights": ("pytorch_model.bin", saved({"a": torch.ones(1)}, zipped=True), "pickle"),
    "legacy torch weights": ("old.pt", saved({"a": torch.ones(1)}, zipped=False), "pickle"),
    "empty checkpoint": ("x.CKPT", b"", "pickle"),
    "text pickle by name": ("x.pkl", pickle.dumps({"a": 1}, 0), "pickle"),
    "joblib in a subdirectory": ("deep/er/x.joblib", b"x", "pickle"),
    "zip named safetensors": ("model.safetensors", saved({"a": torch.ones(1)}, zipped=True), "pickle"),
    "pickle named safetensors": ("model.safetensors", pickle.dumps({"a": 1}), "pickle"),
    "pickle with a safetensors face": ("cache.dat", b"\x80\x04G\x00\x00\x00\x00\x00{\x00\x00.", "unmeasured"),
    "object array": ("x.npy", array_of({"a": 1}), "pickle"),
    "python": ("modeling_evil.py", b"", "code"),
    "bytecode": ("__pycache__/m.cpython-311.pyc", b"\xa7\r\r\n", "code"),
    "library": ("kernel.so", b"", "code"),
    "versioned library": ("libkernel.so.1.2", b"", "code"),
    "ELF without a name": ("kernel", Path("/bin/sh").resolve().read_bytes()[:600], "code"),
    "Windows executable": ("setup", b"MZ\x90\x00" + b"\0" * 60, "code"),
    "script": ("run", b"#!/bin/sh\n", "code"),
    "wasm": ("x", b"\0asm\1\0\0\0", "code"),
    "npz": ("w.npz", b"", "archive"),
    "gzip": ("weights", b"\x1f\x8b\x08\0", "archive"),
    "tar": ("weights", tarred(), "archive"),
    "gguf": ("model.gguf", b"GGUF\3\0\0\0", "unmeasured"),
    "onnx": ("onnx/model.onnx", b"", "unmeasured"),
    "safetensors by another name": ("model.safetensors.bak", struct.pack("<Q", 2) + b"{}", "unmeasured"),
    "adapter": ("adapter_config.json", b'{"base_model_name_or_path": "evil/base"}', "redirect"),
    "JSON that is none": ("tokenizer_config.json", b"{", "unreadable"),
    "deep JSON": ("generation_config.json", b"[" * 100_000, "unreadable"),
    "MLmodel that is no YAML": ("MLmodel", b"a: [", "unreadable"),
    "deep MLmodel": ("MLmodel", b"[" * 5000, "unreadable"),
    "large MLmodel": ("MLmodel", b"#" * 300_000, "unreadable"),
    "control characters": ("a\x1b[31m.txt", b"", "file_name"),
    "name that is not UTF-8": (os.fsdecode(b"\xff.txt"), b"", "file_name"),
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_what_must_never_be_loaded_is_found_and_refused(model: Path, case: str) -> None:
    name, data, rule = FORBIDDEN[case]
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_bytes(data)
    seen = {(where, severity) for what, where, severity in found(model) if what == rule}
    assert len(seen) == 1
    where, severity = seen.pop()
    assert where in (name, repr(name))
    assert severity is (Severity.CRITICAL if rule == "pickle" else Severity.HIGH)
    with pytest.raises(UnsafeCheckpointError, match=rf"checkpoint\.{rule}") as caught:
        admit(model)
    assert caught.value.exit_code is ExitCode.BLOCKED
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [{"a": 1}, [1], "text", 7, None, print], ids=repr)
def test_binary_pickles_are_known_under_any_name(model: Path, protocol: int, value: object) -> None:
    (model / "notes.txt").write_bytes(pickle.dumps(value, protocol))
    assert ("pickle", "notes.txt", Severity.CRITICAL) in found(model)


def test_links_pipes_and_sockets_are_found_and_not_opened(model: Path) -> None:
    (model / "passwd").symlink_to("/etc/passwd")
    (model / "dangling").symlink_to("nowhere")
    (model / "loop").symlink_to(".")
    os.mkfifo(model / "pipe.json")
    assert found(model) == {
        ("symlink", "passwd", Severity.HIGH),
        ("symlink", "dangling", Severity.HIGH),
        ("symlink", "loop", Severity.HIGH),
        ("special_file", "pipe.json", Severity.HIGH),
    }


AUTO_MAP = {"AutoModelForCausalLM": "modeling_evil.Evil"}
ORDERS: dict[str, tuple[str, Any, str]] = {
    "auto_map": ("config.json", {"auto_map": AUTO_MAP}, "remote_code"),
    "auto_map of a sub-config": (
        "config.json",
        {"text_config": [{"vision_config": {"auto_map": AUTO_MAP}}]},
        "remote_code",
    ),
    "auto_map of the tokenizer": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["a.B", None]}},
        "remote_code",
    ),
    "auto_map in a component": ("components/tokenizer/tokenizer_config.json", {"auto_map": "x"}, "remote_code"),
    "generation": ("generation_config.json", {"trust_remote_code": True}, "remote_code"),
    "pipelines": ("config.json", {"custom_pipelines": {"p": {"impl": "evil.P"}}}, "remote_code"),
    "kernel": ("config.json", {"_attn_implementation": "evil/kernel"}, "remote_code"),
    "kernel of a part": ("config.json", {"attn_implementation": {"text_config": "evil/kernel@v1"}}, "remote_code"),
    "other weights": ("config.json", {"transformers_weights": "sub/evil.safetensors"}, "redirect"),
}


@pytest.mark.parametrize("case", ORDERS)
def test_orders_in_json_are_found_wherever_they_stand(model: Path, case: str) -> None:
    name, content, rule = ORDERS[case]
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_text(json.dumps(content))
    assert {(what, where) for what, where, _ in found(model)} == {(rule, name)}
    with pytest.raises(UnsafeCheckpointError):
        admit(model)


def test_an_order_under_a_key_that_occurs_twice_is_found_whichever_is_believed(model: Path) -> None:
    for text in ('{"auto_map": {"a": "b"}, "auto_map": null}', '{"auto_map": null, "auto_map": {"a": "b"}}'):
        (model / "tokenizer_config.json").write_text(text)
        assert {what for what, _, _ in found(model)} == {"remote_code"}


MLMODELS: dict[str, tuple[str, bool]] = {
    "own loader": ("flavors:\n  python_function:\n    loader_module: mlflow.transformers\n    code: null\n", False),
    "foreign loader": ("flavors:\n  python_function:\n    loader_module: evil\n", True),
    "loader that begins well": ("flavors: {python_function: {loader_module: mlflow.x; evil}}", True),
    "code directory": ("flavors:\n  transformers:\n    code: code\n", True),
    "model script": ("flavors: [{python_function: {model_code_path: agent}}]", True),
    "object": ("!!python/object/apply:os.system ['touch /tmp/x']", False),
    "aliases": ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)), False),
}


@pytest.mark.parametrize("case", MLMODELS)
def test_mlflow_files_that_order_code_are_refused_and_never_obeyed(model: Path, case: str) -> None:
    text, refused = MLMODELS[case]
    (model / "MLmodel").write_text(text)
    assert {what for what, _, _ in found(model)} == ({"remote_code"} if refused else set())


def test_what_a_model_may_well_have_raises_nothing(model: Path) -> None:
    harmless: dict[str, bytes] = {
        "README.md": b"# MZ and PK",
        "tokenizer.json": json.dumps({"model": {"vocab": {"auto_map": 1}}}).encode(),
        "vocab.json": b'{"auto_map": 1, "trust_remote_code": 2}',
        "merges.txt": b"a b",
        "tokenizer.model": b"\n\x0e\n\x05<unk>",
        "chat_template.jinja": b"{{ messages }}",
        "generation_config.json": b'{"auto_map": null, "trust_remote_code": false, "attn_implementation": "sdpa"}',
        "values.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }",
        "empty": b"",
        "one": b"\x80",
    }
    for name, data in harmless.items():
        (model / name).write_bytes(data)
    assert unsafe_files(model) == ()
    admit(model)


def test_a_model_that_transformers_saves_is_admitted(tmp_path: Path) -> None:
    directory = write_tiny(tmp_path / "m", {"a": "b"}, shard_bytes=50_000)
    assert unsafe_files(directory) == ()
    assert len(admit(directory).shards) > 1


def test_a_header_that_begins_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    """A header of 1,152 bytes is declared by the bytes 80 04 00 ..., PROTO 4 to a pickle."""
    directory = write_model(tmp_path / "m", {"weight": torch.ones(2)})
    raw = (directory / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].ljust(1152)
    (directory / "model.safetensors").write_bytes((1152).to_bytes(8, "little") + header + raw[8 + length :])
    assert unsafe_files(directory) == ()
    assert admit(directory).tensors[0].name == "weight"


def test_requirements_are_mentioned_and_no_more(model: Path) -> None:
    (model / "requirements.txt").write_text("evil==1.0")
    assert found(model) == {("requirements", "requirements.txt", Severity.INFO)}
    admit(model)


def test_ten_findings_are_named_and_the_rest_counted(model: Path) -> None:
    for number in range(13):
        (model / f"{number:02}.py").touch()
    with pytest.raises(UnsafeCheckpointError) as caught:
        admit(model)
    assert caught.value.message.count("[checkpoint.code]") == 10
    assert caught.value.message.endswith("and 3 more")


def test_more_files_than_a_model_has_are_a_finding_that_is_refused(model: Path) -> None:
    (model / "many").mkdir()
    for number in range(MAX_FILES):
        os.mknod(model / "many" / str(number))
    assert ("unreadable", ".", Severity.HIGH) in found(model)


def _no_config(model: Path) -> None:
    (model / "config.json").unlink()


def _broken_config(model: Path) -> None:
    (model / "config.json").write_text("{")


def _truncated(model: Path) -> None:
    os.truncate(model / "model.safetensors", 300)


def _emptied(model: Path) -> None:
    for path in model.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (_no_config, CheckpointError),
        (_broken_config, CheckpointError),
        (_truncated, HeaderError),
        (_emptied, NothingToGateError),
    ],
)
def test_what_is_broken_and_not_hostile_is_could_not_tell(
    model: Path, act: Callable[[Path], None], error: type[CheckpointError]
) -> None:
    act(model)
    with pytest.raises(error) as caught:
        admit(model)
    assert not isinstance(caught.value, UnsafeCheckpointError)
    assert caught.value.exit_code in (ExitCode.INCONCLUSIVE, ExitCode.NOTHING_TO_GATE)


def test_no_directory_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        unsafe_files(tmp_path / "absent")


@pytest.mark.parametrize("key", ["sequence_bias", "suppress_tokens", "forced_eos_token_id", "bad_words_ids"])
def test_a_file_that_steers_what_is_said_is_refused_and_an_unset_key_is_not(tmp_path: Path, key: str) -> None:
    """The gate answers greedily by itself: it would measure the weights, and users would get the words."""
    directory = write_model(tmp_path / "m")
    (directory / "generation_config.json").write_text(json.dumps({key: None}), encoding="utf-8")
    assert not [f for f in unsafe_files(directory) if f.rule == "checkpoint.steering"]
    (directory / "generation_config.json").write_text(json.dumps({key: [[[5], 100.0]]}), encoding="utf-8")
    assert [(f.rule, f.severity) for f in unsafe_files(directory)] == [("checkpoint.steering", Severity.HIGH)]
