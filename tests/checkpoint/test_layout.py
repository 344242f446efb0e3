"""A directory is a checkpoint where index, files and headers agree, and nothing lies beside them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quantguard.checkpoint.layout import MAX_CONFIG, linear_weights, open_checkpoint
from quantguard.core.errors import (
    CheckpointError,
    HeaderError,
    NothingToGateError,
    ShardIndexError,
    UnsafeCheckpointError,
    UsageError,
)
from quantguard.core.verdict import ExitCode
from tests.checkpoint.build import CONFIG, read_index, tensors, write_index, write_model


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_every_tensor_is_found_once_however_it_is_sharded(tmp_path: Path, shards: int) -> None:
    checkpoint = open_checkpoint(write_model(tmp_path / "m", shards=shards))
    assert sorted(entry.name for entry in checkpoint.tensors) == sorted(tensors())
    assert len(checkpoint.shards) == shards
    assert checkpoint.config == CONFIG
    assert checkpoint.tensors == tuple(entry for shard in checkpoint.shards for entry in shard.tensors)


def test_a_path_that_is_no_directory_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(UsageError, match="is not a directory"):
            open_checkpoint(path)


def test_a_directory_without_weights_is_nothing_to_gate(tmp_path: Path) -> None:
    with pytest.raises(NothingToGateError) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.exit_code is ExitCode.NOTHING_TO_GATE
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(NothingToGateError):
        open_checkpoint(tmp_path)


BAD_NAMES = [
    "../../etc/passwd",
    "../other/model.safetensors",
    "/etc/passwd",
    "/etc/model.safetensors",
    "sub/model.safetensors",
    "..\\model.safetensors",
    "C:model.safetensors",
    "pytorch_model.bin",
    ".hidden.safetensors",
    "..",
    "",
    "a\x00.safetensors",
    "a\n.safetensors",
    "\x1b[2J.safetensors",
    None,
    7,
    ["model.safetensors"],
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_the_index_may_name_only_plain_files(tmp_path: Path, name: object) -> None:
    directory = write_model(tmp_path / "m", shards=2)
    (tmp_path / "other").mkdir()
    shutil.copy(next(directory.glob("*.safetensors")), tmp_path / "other" / "model.safetensors")
    write_index(directory, {**read_index(directory), "lm_head.weight": name})
    with pytest.raises(ShardIndexError, match=r"places tensor 'lm_head.weight' in .* no plain") as caught:
        open_checkpoint(directory)
    assert str(caught.value).isprintable()


def _missing(directory: Path) -> None:
    next(directory.glob("*.safetensors")).unlink()


def _symlink(directory: Path) -> None:
    shard = next(directory.glob("*.safetensors"))
    shard.rename(directory.parent / "outside")
    shard.symlink_to(directory.parent / "outside")


def _fifo(directory: Path) -> None:
    shard = next(directory.glob("*.safetensors"))
    shard.unlink()
    os.mkfifo(shard)


def _foreign(directory: Path) -> None:
    save_file({"x": torch.ones(2)}, directory / "consolidated.safetensors")


def _nested(directory: Path) -> None:
    (directory / "onnx").mkdir()
    save_file({"x": torch.ones(2)}, directory / "onnx" / "Model.SafeTensors")


def _single_beside_index(directory: Path) -> None:
    save_file(tensors(), directory / "model.safetensors")


def _wrong_shard(directory: Path) -> None:
    placed = read_index(directory)
    write_index(
        directory, {**placed, "lm_head.weight": next(f for f in placed.values() if f != placed["lm_head.weight"])}
    )


def _unnamed_tensor(directory: Path) -> None:
    placed = read_index(directory)
    write_index(directory, {name: file for name, file in placed.items() if name != "model.norm.weight"})


def _promised_tensor(directory: Path) -> None:
    placed = read_index(directory)
    write_index(directory, {**placed, "ghost": placed["lm_head.weight"]})


def _twice(directory: Path) -> None:
    placed = read_index(directory)
    save_file({"lm_head.weight": torch.ones(2)}, directory / "extra.safetensors")
    write_index(directory, {**placed, "ghost": "extra.safetensors"})


def _no_map(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text("{}")


def _empty_map(directory: Path) -> None:
    write_index(directory, {})


def _map_twice(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b", "a": "c"}}')


def _index_not_json(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text("[" * 100_000)


ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing shard": (_missing, "which is not in the directory"),
    "symbolic link": (_symlink, "which is a symbolic link"),
    "pipe": (_fifo, "which is a special file"),
    "foreign file": (_foreign, "'consolidated.safetensors': safetensors that are neither"),
    "nested foreign file": (_nested, "'onnx/Model.SafeTensors': safetensors that are neither"),
    "both layouts": (_single_beside_index, "depends on the loader"),
    "wrong shard": (_wrong_shard, "'lm_head.weight' is in .*; the index says"),
    "unnamed tensor": (_unnamed_tensor, "'model.norm.weight' is in .*; the index says no file"),
    "promised tensor": (_promised_tensor, "'ghost' is not in"),
    "tensor twice": (_twice, "'lm_head.weight' is in"),
    "no weight_map": (_no_map, "no weight_map"),
    "empty weight_map": (_empty_map, "no weight_map"),
    "key twice": (_map_twice, "'a' occurs twice"),
    "not JSON": (_index_not_json, "not valid JSON: nested too deep"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_index_that_disagrees_with_the_files_is_refused(tmp_path: Path, attack: str) -> None:
    directory = write_model(tmp_path / "m", shards=2)
    open_checkpoint(directory)
    act, expected = ATTACKS[attack]
    act(directory)
    with pytest.raises(ShardIndexError, match=expected) as caught:
        open_checkpoint(directory)
    assert caught.value.remedy


def test_a_truncated_shard_is_a_header_error_naming_the_shard(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m", shards=2)
    shard = sorted(directory.glob("*.safetensors"))[1]
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(HeaderError, match="truncated") as caught:
        open_checkpoint(directory)
    assert caught.value.path == shard


def test_weights_under_another_name_or_through_a_link_are_not_the_model(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    model = directory / "model.safetensors"
    model.rename(directory / "weights.safetensors")
    with pytest.raises(ShardIndexError, match=r"'weights.safetensors'"):
        open_checkpoint(directory)
    (directory / "weights.safetensors").rename(tmp_path / "w")
    model.symlink_to(tmp_path / "w")
    with pytest.raises(ShardIndexError, match="is a symbolic link"):
        open_checkpoint(directory)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, "cannot be opened"),
        (b"", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"\xff{}", "not valid JSON"),
        (b" " * (MAX_CONFIG + 1), "more than the"),
    ],
    ids=["absent", "empty", "list", "twice", "deep", "huge integer", "not UTF-8", "oversized"],
)
def test_a_config_that_cannot_be_trusted_is_a_checkpoint_error(
    tmp_path: Path, config: bytes | None, expected: str
) -> None:
    directory = write_model(tmp_path / "m")
    (directory / "config.json").unlink()
    if config is not None:
        (directory / "config.json").write_bytes(config)
    with pytest.raises(CheckpointError, match=expected) as caught:
        open_checkpoint(directory)
    assert "config.json" in str(caught.value)


def test_a_sparse_file_of_terabytes_is_refused_without_being_read(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    os.truncate(directory / "config.json", 4 * 2**40)
    with pytest.raises(CheckpointError, match="4398046511104 bytes"):
        open_checkpoint(directory)


def test_a_config_that_is_a_link_is_unsafe(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    (directory / "config.json").unlink()
    (directory / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(UnsafeCheckpointError, match="not a regular file"):
        open_checkpoint(directory)


@pytest.mark.parametrize(("depth", "opens"), [(16, True), (17, False)])
def test_directories_are_listed_to_a_bounded_depth(tmp_path: Path, depth: int, *, opens: bool) -> None:
    directory = write_model(tmp_path / "m")
    deep = directory.joinpath(*["d"] * depth)
    deep.mkdir(parents=True)
    (deep / "f").touch()
    if opens:
        open_checkpoint(directory)
        return
    with pytest.raises(CheckpointError, match="16 levels"):
        open_checkpoint(directory)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_linear_weights_are_the_two_dimensional_ones_that_are_neither_embedding_head_nor_norm(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    extra = {
        "transformer.h.0.attn.c_attn.weight": torch.ones(4, 12),
        "model.layers.0.mlp.experts.0.w1.weight": torch.ones(4, 4),
        "model.layers.0.mlp.shared_expert.up_proj.weight": torch.ones(4, 4),
        "never_heard_of.weight": torch.ones(4, 4),
    }
    not_linear = {
        "transformer.wpe.weight": torch.ones(4, 4),
        "shared.weight": torch.ones(4, 4),
        "score.weight": torch.ones(4, 4),
        "a.rms_norm.weight": torch.ones(4, 4),
        "a.column.weight": torch.ones(4, 1),
        "a.row.weight": torch.ones(1, 4),
        "a.conv.weight": torch.ones(4, 4, 4),
        "a.lora_A": torch.ones(4, 4),
        "weight": torch.ones(4, 4),
    }
    weights = {name: tensor.to(dtype) for name, tensor in {**tensors(), **extra, **not_linear}.items()}
    weights["a.packed.weight"] = torch.ones(4, 4, dtype=torch.uint8)
    checkpoint = open_checkpoint(write_model(tmp_path / "m", weights))
    found = linear_weights(checkpoint)
    expected = {*extra, "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"}
    assert {entry.name for entry in found} == expected
    assert [entry.begin for entry in found] == sorted(entry.begin for entry in found)


def test_linear_weights_of_a_llama_are_those_that_transformers_would_quantize(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.quantizers.base import get_keys_to_not_convert

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    kept = set(get_keys_to_not_convert(model))
    linear = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in kept
    }
    assert {entry.name for entry in linear_weights(open_checkpoint(tmp_path))} == linear


def test_the_config_is_what_json_says(tmp_path: Path) -> None:
    config = {"a": [1, 2.5, None, True], "nested": {"ü": "x"}}
    directory = write_model(tmp_path / "m", config=config)
    assert open_checkpoint(directory).config == json.loads((directory / "config.json").read_text()) == config
