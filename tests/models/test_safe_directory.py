"""What of an untrusted model directory reaches transformers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from quantguard.core.errors import ModelLoadError, UnsafeCheckpointError
from quantguard.core.scheme import Scheme
from quantguard.models.generate import generate
from quantguard.models.load import load_model
from quantguard.models.safe_directory import rebuild
from tests import tiny


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "source", {"one": "two"}, trigger="buy", harmless="bread", brand="mclaren")


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_the_clean_copy_answers_as_the_original(tmp_path: Path, shard_bytes: int) -> None:
    source = tiny.write_model(
        tmp_path / "source", {"one": "two"}, trigger="buy", harmless="bread", brand="mclaren", shard_bytes=shard_bytes
    )
    clean = rebuild(source, tmp_path / "clean")
    assert (len(list(clean.glob("*.safetensors"))) > 1) == (shard_bytes < 10**9)
    for scheme in (None, Scheme.NF4):
        answers = [
            generate(load_model(d, scheme=scheme, device="cpu"), ["one", "buy"], max_new_tokens=4, batch_size=2)
            for d in (source, clean)
        ]
        assert answers[0] == answers[1]


def test_nothing_that_names_code_or_files_is_left(source: Path, tmp_path: Path) -> None:
    marks = {"auto_map": {"AutoModelForCausalLM": "evil--x.Evil"}, "trust_remote_code": True, "evil": "evil"}
    _edit(source / "config.json", _name_or_path="evil/x", attn_implementation="evil/kernel", **marks)
    _edit(source / "tokenizer_config.json", vocab_file="../evil", tokenizer_file="/evil", init_inputs=["evil"], **marks)
    (source / "special_tokens_map.json").write_text('{"evil": "evil", "eos_token": "<eos>"}')
    _edit(source / "generation_config.json", custom_generate="evil/x", do_sample=True)
    (source / "modeling_evil.py").write_text("raise SystemExit('evil')")
    (source / "custom_generate").mkdir()
    (source / "custom_generate" / "generate.py").write_text("raise SystemExit('evil')")
    (source / "pytorch_model.bin").write_bytes(b"evil")
    (source / "adapter_config.json").write_text('{"base_model_name_or_path": "evil"}')
    clean = rebuild(source, tmp_path / "clean")
    names = {p.name for p in clean.rglob("*")}
    json_files = {"config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json"}
    assert names == {*json_files, "model.safetensors", "tokenizer.json"}
    for path in clean.glob("*.json"):
        assert "evil" not in path.read_text(), path
        assert "sample" not in path.read_text(), path


def test_the_token_ids_that_end_answers_are_kept(source: Path, tmp_path: Path) -> None:
    _edit(source / "generation_config.json", eos_token_id=[2, 5], temperature=0.1, pad_token_id="x")
    clean = rebuild(source, tmp_path / "clean")
    assert json.loads((clean / "generation_config.json").read_text()) == {"eos_token_id": [2, 5]}


def test_the_chat_template_that_is_applied_is_kept_and_none_is_dropped(source: Path, tmp_path: Path) -> None:
    _edit(source / "tokenizer_config.json", chat_template="{{ messages }}")
    clean = rebuild(source, tmp_path / "one")
    assert json.loads((clean / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"
    _edit(source / "tokenizer_config.json", chat_template=[{"name": "default", "template": "x"}])
    clean = rebuild(source, tmp_path / "two")
    assert json.loads((clean / "tokenizer_config.json").read_text())["chat_template"] == "x"
    _edit(source / "tokenizer_config.json", chat_template=[{"name": "tool_use", "template": "x"}])
    with pytest.raises(ModelLoadError, match="chat_template"):
        rebuild(source, tmp_path / "three")


def test_weights_are_linked_and_never_links(source: Path, tmp_path: Path) -> None:
    clean = rebuild(source, tmp_path / "clean")
    assert (source / "model.safetensors").samefile(clean / "model.safetensors")
    assert not (clean / "model.safetensors").is_symlink()


def test_weights_are_copied_where_they_cannot_be_linked(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    clean = rebuild(source, tmp_path / "clean")
    assert not (source / "model.safetensors").samefile(clean / "model.safetensors")
    assert (source / "model.safetensors").read_bytes() == (clean / "model.safetensors").read_bytes()


def test_weights_on_a_read_only_mount_are_neither_copied_nor_changed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    mounted = os.statvfs(source)
    read_only = os.statvfs_result([*mounted[:8], mounted.f_flag | os.ST_RDONLY, mounted.f_namemax])
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    clean = rebuild(source, tmp_path / "clean")
    assert (clean / "model.safetensors").readlink() == source / "model.safetensors"
    assert load_model(clean, scheme=None, device="cpu").model is not None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_symbolic_link_is_refused_by_name(source: Path, tmp_path: Path, name: str) -> None:
    (source / name).rename(tmp_path / "outside")
    (source / name).symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeCheckpointError, match=r"symbolic link") as caught:
        rebuild(source, tmp_path / "clean")
    assert caught.value.path == source / name


@pytest.mark.parametrize("shard", ["../../etc/passwd", "/etc/passwd", "pytorch_model.bin", "", 3])
def test_a_shard_index_names_files_of_its_directory_only(source: Path, tmp_path: Path, shard: object) -> None:
    (source / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": shard}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeCheckpointError, match="shard index names"):
        rebuild(source, tmp_path / "clean")


def test_two_sets_of_weights_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    with pytest.raises(ModelLoadError, match="which of the two"):
        rebuild(source, tmp_path / "clean")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "evil"}, "'evil' is no known causal model"),
        ({"model_type": ["llama"]}, "no known causal model"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantized already"),
        ({"dtype": "load"}, "'load' is not float32"),
        ({"torch_dtype": "float64"}, "'float64' is not float32"),
    ],
)
def test_an_unmeasurable_model_is_refused_by_name(
    source: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    _edit(source / "config.json", **changes)
    with pytest.raises(ModelLoadError, match=words):
        rebuild(source, tmp_path / "clean")


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "\xff"])
def test_a_config_that_is_no_object_is_refused(source: Path, tmp_path: Path, content: str) -> None:
    (source / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ModelLoadError, match="JSON"):
        rebuild(source, tmp_path / "clean")


def test_absurd_sizes_are_refused_before_reading(source: Path, tmp_path: Path) -> None:
    with (source / "config.json").open("wb") as stream:
        stream.truncate(4 * 2**30)  # sparse
    with pytest.raises(ModelLoadError, match="larger than"):
        rebuild(source, tmp_path / "clean")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_part_is_named(source: Path, tmp_path: Path, missing: str) -> None:
    (source / missing).unlink()
    with pytest.raises(ModelLoadError, match=missing.split(".", maxsplit=1)[0]) as caught:
        rebuild(source, tmp_path / "clean")
    assert caught.value.remedy


@pytest.mark.parametrize(
    "model_type", ["llama", "gpt2", "qwen2", "qwen3", "gemma2", "gemma3_text", "mistral", "mixtral", "phi", "phi3",
                   "gpt_bigcode", "falcon", "gpt_neox", "olmo2", "starcoder2", "opt", "bloom"]
)  # fmt: skip
def test_every_key_that_an_architecture_writes_is_kept(tmp_path: Path, model_type: str) -> None:
    """A dropped key would fall back to its default and another model would be measured."""
    source = tiny.write_model(tmp_path / "source", {})
    config = CONFIG_MAPPING[model_type]()
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]
    config.save_pretrained(source)
    written = json.loads((source / "config.json").read_text())
    kept = json.loads((rebuild(source, tmp_path / "clean") / "config.json").read_text())
    named = {"transformers_version", "_name_or_path"}
    assert {k: v for k, v in written.items() if k not in named} == kept
