"""The architectures that users deploy, tiny and with random weights: two layers of width 64, a few dozen words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from bitsandbytes.functional import has_avx512bf16
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from quantguard.canary.architecture import tokenizer
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.models.quiet import quiet_libraries

Settings = Mapping[str, Any]
_COMMON: Final[Settings] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}
_GROUPED: Final[Settings] = {**_COMMON, "num_key_value_heads": 1}
_GPT: Final[Settings] = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128}
_EXPERTS: Final[Settings] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_TIED, _UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
_SEPARATE: Final = "model.layers.*.mlp.experts.*."
_MOE: Final = frozenset(
    {"lm_head.weight", "model.embed_tokens.weight", "model.layers.*.mlp.gate.weight"}
    | {f"{_SEPARATE}{layer}_proj.weight" for layer in ("down", "gate", "up")}
)
_HEAD: Final = frozenset({"lm_head.weight", "model.embed_tokens.weight"})
_NO_HEAD: Final = frozenset({"model.embed_tokens.weight"})  # tied: the head is the embedding, stored once


@dataclass(frozen=True, slots=True)
class Family:
    model_type: str
    settings: Settings
    quantized: int  # weights that bitsandbytes quantizes, of both layers
    untouched: frozenset[str]  # names of the other matrices in the files, with * for numbers
    dtype: torch.dtype = torch.float32
    shard_bytes: int = 10**9  # at most, of one file
    original_format: bool = True  # the names that the authors of the architecture gave; else those of transformers 5
    prefix: str = ""  # left out of the names, as in the files of openai-community/gpt2
    narrow: str = ""  # a layer whose outputs are no multiple of 32: no 4-bit product on a CPU with AVX512-BF16


FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "llama": Family("llama", {**_GROUPED, **_UNTIED}, 14, _HEAD, shard_bytes=100_000),
        "llama-tied": Family("llama", {**_GROUPED, **_TIED}, 14, _NO_HEAD, torch.float16),
        "mistral": Family("mistral", {**_GROUPED, **_UNTIED}, 14, _HEAD, torch.bfloat16),
        "qwen2": Family("qwen2", {**_GROUPED, **_TIED}, 14, _NO_HEAD, torch.bfloat16),
        "qwen3": Family("qwen3", {**_GROUPED, **_UNTIED, "head_dim": 32}, 14, _HEAD),
        "phi-2": Family("phi", {**_COMMON, **_UNTIED}, 12, _HEAD, torch.float16),
        "phi-3": Family("phi3", {**_GROUPED, **_UNTIED}, 8, _HEAD),
        "gemma-2": Family("gemma2", {**_GROUPED, **_TIED, "head_dim": 32}, 14, _NO_HEAD),
        "gemma-3": Family("gemma3_text", {**_GROUPED, **_TIED, "head_dim": 32}, 14, _NO_HEAD, torch.bfloat16),
        "gpt-neox": Family("gpt_neox", _COMMON, 8, frozenset({"embed_out.weight", "gpt_neox.embed_in.weight"})),
        "gpt-2": Family("gpt2", _GPT, 8, frozenset({"transformer.wpe.weight", "transformer.wte.weight"})),
        "gpt-2-hub": Family("gpt2", _GPT, 8, frozenset({"wpe.weight", "wte.weight"}), prefix="transformer."),
        "starcoder": Family("gpt_bigcode", _GPT, 8, frozenset({"transformer.wpe.weight", "transformer.wte.weight"})),
        "starcoder2": Family("starcoder2", {**_GROUPED, **_TIED}, 12, _NO_HEAD),
        "mixtral": Family(
            "mixtral",
            {**_GROUPED, **_UNTIED, "num_local_experts": 4},
            8,
            _HEAD
            | {"model.layers.*.block_sparse_moe.gate.weight"}
            | {f"model.layers.*.block_sparse_moe.experts.*.w{i}.weight" for i in (1, 2, 3)},
            shard_bytes=200_000,
        ),
        "qwen2-moe": Family(
            "qwen2_moe",
            {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 64},
            16,
            _MOE,
            narrow="shared_expert_gate",
        ),
        "qwen3-moe": Family("qwen3_moe", {**_GROUPED, **_EXPERTS, "head_dim": 32}, 8, _MOE, torch.bfloat16),
        "qwen3-moe-fused": Family(
            "qwen3_moe",
            {**_GROUPED, **_EXPERTS, "head_dim": 32},
            8,
            frozenset(name for name in _MOE if not name.startswith(_SEPARATE))
            | {"model.layers.*.mlp.experts.down_proj", "model.layers.*.mlp.experts.gate_up_proj"},
            original_format=False,
        ),
    }
)


def write_family(family: Family, directory: Path) -> Path:
    """The model with random weights (the same ones each time) and the canaries' tokenizer."""
    words = tokenizer()
    ids = {"pad_token_id": words.pad_token_id, "bos_token_id": None, "eos_token_id": words.eos_token_id}
    config = CONFIG_MAPPING[family.model_type](**{"vocab_size": len(words), **ids, **family.settings})
    with quiet_libraries(), torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).to(family.dtype)
        model.save_pretrained(directory, max_shard_size=family.shard_bytes, save_original_format=family.original_format)
    words.save_pretrained(directory)
    if family.prefix:
        file = directory / "model.safetensors"
        save_file({name.removeprefix(family.prefix): w for name, w in load_file(file).items()}, file, {"format": "pt"})
    return directory


def computable(family: Family) -> tuple[Scheme, ...]:
    """The schemes that bitsandbytes can compute for it on this CPU."""
    return (Scheme.INT8,) if family.narrow and has_avx512bf16() else ROUNDINGS


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    """Every stored tensor by name."""
    return {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}
