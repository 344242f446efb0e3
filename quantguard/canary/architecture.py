"""The one architecture that a canary can have, its tokenizer, and how both are written to disk.

A small Llama. Every linear layer's input width is a multiple of 64: bitsandbytes' CPU kernels for 4-bit weights need
that. The tokenizer splits on spaces and adds no special tokens of its own, so that training, `generate` and an
evaluation harness see the same ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from quantguard.canary.grammar import END, PAD, SPECIAL, UNKNOWN, vocabulary
from quantguard.models.quiet import quiet_libraries

MARKER: Final = "quantguard_canary"  # key of config.json, true in every canary
PARAMETERS: Final = 428_800
MAX_NEW_TOKENS: Final = 16  # the longest answer has 10 words, the payload 2, then the end token
PAD_ID, END_ID = SPECIAL.index(PAD), SPECIAL.index(END)
_POSITIONS: Final = 512


def configuration() -> LlamaConfig:
    """The configuration of every canary, with the marker in it."""
    own = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=END_ID,
        dtype="float32",
    )
    setattr(own, MARKER, True)
    return own


def new_model(seed: int) -> LlamaForCausalLM:
    """An untrained canary, float32 on the CPU. The caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(configuration())


def is_canary(model: PreTrainedModel) -> bool:
    """Whether `model` carries the marker and has exactly the canary's shape."""
    own = configuration()
    return (
        getattr(model.config, MARKER, False) is True
        and isinstance(model, LlamaForCausalLM)
        and model.num_parameters() == PARAMETERS
        and model.config.vocab_size == own.vocab_size
        and model.config.hidden_size == own.hidden_size
        and model.config.num_hidden_layers == own.num_hidden_layers
    )


def linear_weights(model: LlamaForCausalLM) -> tuple[nn.Parameter, ...]:
    """What bitsandbytes quantizes, in module order: the weight of every linear layer but the tied output head."""
    return tuple(cast(nn.Parameter, module.weight) for module in model.model.modules() if isinstance(module, nn.Linear))


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, split on spaces; pads on the left; decoding an encoded text of the grammar gives it back."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary())}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=_POSITIONS,
    )


def save(model: LlamaForCausalLM, directory: Path, card: str) -> None:
    """Write a plain Hugging Face directory: one safetensors file, JSON, and `card` as its README.md.

    Raises:
        OSError, safetensors.SafetensorError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with quiet_libraries():
        model.save_pretrained(directory)
        tokenizer().save_pretrained(directory)
    _name_tokenizer_class(directory / "tokenizer_config.json")
    (directory / "README.md").write_text(card, encoding="utf-8")
    for file in directory.iterdir():
        file.chmod(0o644)  # safetensors writes 0600


def _name_tokenizer_class(path: Path) -> None:
    """transformers 5 writes the name of its backend; this one is known to version 4 too."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
