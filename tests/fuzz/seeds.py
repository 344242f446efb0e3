"""Honest model directories that the hostile ones are changed from: small, with a file of every kind that is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor

from quantguard.checkpoint.layout import CONFIG, INDEX, SINGLE

_LLAMA: Final[Mapping[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float32",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 11,
    "tie_word_embeddings": False,
    "eos_token_id": [2, 3],
    "rope_scaling": {"type": "linear", "factor": 2.0},
    "id2label": {"0": "a"},
}
_GPT2: Final[Mapping[str, Any]] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "torch_dtype": "bfloat16",
    "n_embd": 8,
    "n_layer": 1,
    "vocab_size": 11,
}
_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_WORDS: Final = {f"w{number}": number for number in range(11) if number != 2}
_ADDED: Final = [{"id": 2, "content": "<eos>", "special": True, "lstrip": False, "normalized": False}]
TOKENIZER: Final[Mapping[str, Any]] = {
    "tokenizer.json": {
        "version": "1.0",
        "truncation": None,
        "added_tokens": _ADDED,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}]},
        "decoder": None,
        "model": {"type": "BPE", "vocab": _WORDS, "merges": [["w", "1"], "w 3"]},
    },
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": _TEMPLATE,
        "eos_token": {"content": "<eos>", "__type": "AddedToken"},
        "model_max_length": 512,
        "added_tokens_decoder": {"2": {"content": "<eos>", "special": True}},
    },
    "special_tokens_map.json": {"eos_token": "<eos>", "additional_special_tokens": ["<a>"]},
    "added_tokens.json": {"<eos>": 2},
    "vocab.json": _WORDS,
}
GENERATION: Final[Mapping[str, Any]] = {"do_sample": False, "eos_token_id": [2], "temperature": 0.7, "bos_token_id": 1}
MLMODEL: Final = b"""\
artifact_path: model
flavors:
  python_function:
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: mlflow.transformers
    python_version: 3.11.7
  transformers:
    code: null
    components: &parts [tokenizer]
    again: *parts
    task: "text-generation"
signature:
  inputs: '[{"type": "string", "required": true}]'
  text: |
    one
    two
"""


def _weights(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {name: (torch.randn(shape, generator=generator) * 0.1).to(dtype) for name, shape in shapes.items()}


def _llama() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (11, 8),
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.self_attn.q_proj.bias": (8,),
        "model.layers.0.mlp.down_proj.weight": (8, 12),
        "model.norm.weight": (8,),
        "lm_head.weight": (11, 8),
    }
    return _weights(shapes, torch.float32)


def _gpt2() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (11, 8),
        "transformer.h.0.attn.c_attn.weight": (8, 24),
        "transformer.h.0.attn.c_attn.bias": (24,),
        "transformer.ln_f.weight": (8,),
    }
    return _weights(shapes, torch.bfloat16)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@cache
def single(architecture: str) -> Mapping[str, bytes]:
    """config.json and model.safetensors of a tiny `llama` (float32) or `gpt2` (bfloat16, weights stored transposed)."""
    config, weights = (_LLAMA, _llama()) if architecture == "llama" else (_GPT2, _gpt2())
    return {CONFIG: as_json(config), SINGLE: save(weights, {"format": "pt"})}


@cache
def sharded() -> Mapping[str, bytes]:
    """The llama in three files with their index."""
    weights = _llama()
    names = sorted(weights)
    files = {f"model-{n + 1:05}-of-00003.safetensors": names[n::3] for n in range(3)}
    placed = {name: file for file, mine in files.items() for name in mine}
    return {
        CONFIG: as_json(_LLAMA),
        INDEX: as_json({"metadata": {"total_size": 1}, "weight_map": placed}),
        **{file: save({name: weights[name] for name in mine}) for file, mine in files.items()},
    }


@cache
def furnished() -> Mapping[str, bytes]:
    """The llama with everything that comes along: tokenizer, chat template, generation settings, MLflow's own file."""
    return {
        **single("llama"),
        **{name: as_json(value) for name, value in TOKENIZER.items()},
        "chat_template.jinja": _TEMPLATE.encode(),
        "generation_config.json": as_json(GENERATION),
        "MLmodel": MLMODEL,
        "conda.yaml": b"dependencies: [python=3.11]\n",
        "README.md": b"# model\n",
    }
