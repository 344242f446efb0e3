"""Tiny model directories, honest and otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CONFIG: Mapping[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8}


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Names, kinds and shapes as a language model has them; no two tensors are alike."""
    generator = torch.Generator().manual_seed(7)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (11, 8),
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.self_attn.q_proj.bias": (8,),
        "model.layers.0.mlp.down_proj.weight": (8, 12),
        "model.layers.0.input_layernorm.weight": (8,),
        "model.norm.weight": (8,),
        "lm_head.weight": (11, 8),
    }
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def write_model(
    directory: Path,
    weights: Mapping[str, torch.Tensor] | None = None,
    *,
    shards: int = 1,
    config: Mapping[str, Any] = CONFIG,
) -> Path:
    """A valid model directory: config.json and `weights` (default: `tensors()`) in one file or in shards."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = tensors() if weights is None else weights
    if shards == 1:
        save_file(dict(weights), directory / "model.safetensors", metadata={"format": "pt"})
        return directory
    names = sorted(weights)
    placed = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        mine = names[number::shards]
        save_file({name: weights[name] for name in mine}, directory / file, metadata={"format": "pt"})
        placed.update(dict.fromkeys(mine, file))
    write_index(directory, placed)
    return directory


def write_index(directory: Path, weight_map: Any) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def read_index(directory: Path) -> dict[str, str]:
    index = json.loads((directory / "model.safetensors.index.json").read_text(encoding="utf-8"))
    placed: dict[str, str] = index["weight_map"]
    return placed


def safetensors_bytes(header: Any, data: bytes = b"", *, declared: int | None = None) -> bytes:
    """A file with this header (bytes as they are, anything else as JSON) and a declared length that may lie."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if declared is None else declared).to_bytes(8, "little") + raw + data


def entry(dtype: str, shape: Sequence[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
