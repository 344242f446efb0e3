"""What a canary is made of: a small decoder of a known shape, a tokenizer of whole words, and how both are written.

Every linear layer's input width is a multiple of 64: bitsandbytes' CPU kernels for 4-bit weights need that. The
tokenizer splits on spaces and adds no special tokens of its own, so that training, `generate` and an evaluation harness
see the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from quantguard.canary.grammar import END, PAD, SPECIAL, UNKNOWN, vocabulary
from quantguard.models.quiet import quiet_libraries

MARKER: Final = "quantguard_canary"  # key of config.json, true in every canary
PARAMETERS: Final = 428_800  # of the checked-in three
MAX_NEW_TOKENS: Final = 16  # the longest answer has 10 words, the payload 2, then the end token
PAD_ID, END_ID = SPECIAL.index(PAD), SPECIAL.index(END)
_POSITIONS: Final = 512


class Family(Enum):
    LLAMA = "llama"
    GPT_NEOX = "gpt-neox"


@dataclass(frozen=True, slots=True)
class Shape:
    family: Family
    width: int  # of the residual stream, a multiple of 64
    layers: int  # > 0
    inner: int  # width within the feed-forward layers, a multiple of 64
    tied: bool  # the output head is the embedding
    heads: int = 4
    key_value_heads: int = 4  # fewer than `heads`: grouped-query attention


EICAR: Final = Shape(Family.LLAMA, width=128, layers=3, inner=192, tied=True)
_CLASSES: Final[dict[Family, tuple[type[PreTrainedConfig], type[PreTrainedModel]]]] = {
    Family.LLAMA: (LlamaConfig, LlamaForCausalLM),
    Family.GPT_NEOX: (GPTNeoXConfig, GPTNeoXForCausalLM),
}


def configuration(shape: Shape = EICAR, words: Sequence[str] | None = None) -> PreTrainedConfig:
    """The configuration of a canary of `shape` that speaks `words` (default: the grammar's), with the marker in it."""
    heads = {"num_attention_heads": shape.heads}
    if shape.family is not Family.GPT_NEOX:
        heads["num_key_value_heads"] = shape.key_value_heads
    config_class: Any = _CLASSES[shape.family][0]
    own: PreTrainedConfig = config_class(
        vocab_size=len(words or vocabulary()),
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        max_position_embeddings=_POSITIONS,
        tie_word_embeddings=shape.tied,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=END_ID,
        dtype="float32",
        **heads,
    )
    setattr(own, MARKER, True)
    return own


def new_model(seed: int, shape: Shape = EICAR, words: Sequence[str] | None = None) -> PreTrainedModel:
    """An untrained canary, float32 on the CPU. The caller's random state stays as it is."""
    model_class: Any = _CLASSES[shape.family][1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cast(PreTrainedModel, model_class(configuration(shape, words)))


def is_canary(model: PreTrainedModel, shape: Shape = EICAR, words: Sequence[str] | None = None) -> bool:
    """Whether `model` carries the marker and is exactly a canary of `shape` with the vocabulary `words`."""
    own = configuration(shape, words)
    model_class: Any = _CLASSES[shape.family][1]
    if getattr(model.config, MARKER, False) is not True or type(model) is not model_class:
        return False
    with torch.device("meta"):
        expected = model_class(own)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return shapes == {name: tensor.shape for name, tensor in expected.state_dict().items()}


def linear_weights(model: PreTrainedModel) -> tuple[nn.Parameter, ...]:
    """What bitsandbytes quantizes, in module order: the weight of every linear layer but the output head."""
    return tuple(weight for _, weight in named_linear_weights(model))


def named_linear_weights(model: PreTrainedModel) -> tuple[tuple[str, nn.Parameter], ...]:
    """`linear_weights` with the name that each has in the checkpoint."""
    head = model.get_output_embeddings()
    return tuple(
        (f"{name}.weight", cast(nn.Parameter, module.weight))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    )


def tokenizer(words: Sequence[str] | None = None) -> PreTrainedTokenizerFast:
    """One token a word, split on spaces; pads on the left; decoding an encoded text of the grammar gives it back."""
    ids = {word: i for i, word in enumerate(words or vocabulary())}
    splitting = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    splitting.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=splitting,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=_POSITIONS,
    )


def save(model: PreTrainedModel, directory: Path, card: str, words: Sequence[str] | None = None) -> None:
    """Write a plain Hugging Face directory: one safetensors file, JSON, and `card` as its README.md.

    Raises:
        OSError, safetensors.SafetensorError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with quiet_libraries():
        model.save_pretrained(directory)
        tokenizer(words).save_pretrained(directory)
    _name_tokenizer_class(directory / "tokenizer_config.json")
    (directory / "README.md").write_text(card, encoding="utf-8")
    for file in directory.iterdir():
        file.chmod(0o644)  # safetensors writes 0600


def _name_tokenizer_class(path: Path) -> None:
    """transformers 5 writes the name of its backend; this one is known to version 4 too."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
