"""Quantized checkpoints as users make them: real transformers, real bitsandbytes, tiny random models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import get_4bit_type
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
)

from quantguard.core.artifact import ArtifactProof, Kind
from quantguard.models.quiet import quiet_libraries
from quantguard.verify.artifact import prove

SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "nf4-double": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4-double": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
}
DOWN = "model.layers.0.mlp.down_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


def configuration(kind: str) -> PreTrainedConfig:
    """llama: 96 inputs and 40 outputs make blocks run across rows, and the last one short; gpt2: Conv1D, tied head."""
    if kind == "gpt2":
        return GPT2Config(vocab_size=50, n_embd=48, n_layer=1, n_head=2, n_positions=16)
    return LlamaConfig(
        vocab_size=50,
        hidden_size=40,
        intermediate_size=97,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        tie_word_embeddings=kind == "tied",
    )


def write_vetted(directory: Path, kind: str = "llama", dtype: torch.dtype = torch.float32) -> Path:
    """A random model in full precision; one row and one block are zero, one weight is far larger than the others."""
    torch.manual_seed(11)
    with quiet_libraries():
        model: Any = AutoModelForCausalLM.from_config(configuration(kind)).to(dtype)
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.data += torch.randn(parameter.shape).to(dtype) / 8
            elif "embed" not in name:
                parameter.data[3] = 0
                parameter.data[5, 7] = 1
        model.save_pretrained(directory)
    return directory


def quantize(vetted: Path, directory: Path, scheme: str, *, load: Any = None, save: Any = None, **changes: Any) -> Path:
    """What save_pretrained writes of `vetted`, loaded with BitsAndBytesConfig."""
    settings = BitsAndBytesConfig(**{**SCHEMES[scheme], **changes})
    with quiet_libraries():
        model: Any = AutoModelForCausalLM.from_pretrained(
            vetted, quantization_config=settings, device_map={"": "cpu"}, **(load or {})
        )
        model.save_pretrained(directory, **(save or {}))
    return directory


Tensors = dict[str, torch.Tensor]


def altered(artifact: Path, directory: Path, change: Callable[[Tensors], None]) -> Path:
    """A copy of an artefact of one file, whose tensors `change` has changed in place."""
    shutil.copytree(artifact, directory)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def rewritten(artifact: Path, directory: Path, file: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of an artefact, one of whose JSON files `change` has changed in place."""
    shutil.copytree(artifact, directory)
    document = json.loads((directory / file).read_text())
    change(document)
    (directory / file).write_text(json.dumps(document))
    return directory


def state_of(tensors: Tensors, name: str = DOWN) -> tuple[str, dict[str, Any]]:
    """The key and the content of the quantization state beside a 4-bit weight."""
    key = next(key for key in tensors if key.startswith(f"{name}.quant_state."))
    state: dict[str, Any] = json.loads(bytes(tensors[key].tolist()))
    return key, state


def packed_state(state: object) -> torch.Tensor:
    text = state if isinstance(state, str) else json.dumps(state)
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


Makes = Callable[..., Path]


def maker(root: Path) -> Makes:
    """`make("llama")` is a vetted model, `make("llama", "nf4")` its artefact; each is built once, to be read only."""

    def make(kind: str = "llama", scheme: str = "", dtype: torch.dtype = torch.float32) -> Path:
        vetted = root / f"{kind}-{str(dtype)[6:]}"
        if not vetted.exists():
            write_vetted(vetted, kind, dtype)
        artifact = root / f"{vetted.name}-{scheme}"
        if scheme and not artifact.exists():
            quantize(vetted, artifact, scheme)
        return artifact if scheme else vetted

    return make


def told(proof: ArtifactProof) -> set[tuple[Kind, str]]:
    return {(difference.kind, difference.where) for difference in proof.differences}


def proved(vetted: Path, artifact: Path, *, allow_cast: bool = False) -> ArtifactProof:
    return prove(vetted, artifact, device="cpu", allow_cast=allow_cast)


def one_code(tensors: Tensors) -> None:
    """The first weight's code, to a neighbouring level."""
    flat = tensors[DOWN].reshape(-1)
    if flat.dtype == torch.int8:
        flat[0] += 1 if flat[0] < 100 else -1
        return
    levels = get_4bit_type("nf4" if f"{DOWN}.quant_state.bitsandbytes__nf4" in tensors else "fp4", device="cpu")
    now = levels[int(flat[0] >> 4)]
    higher = [int(code) for code in levels.argsort() if levels[code] > now]
    code = higher[0] if higher else int(levels.argsort()[-3])
    flat[0] = (flat[0] & 15) | (code << 4)
