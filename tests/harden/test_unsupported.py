"""Architectures whose layers cannot be hardened are refused by name, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from quantguard.canary.architecture import tokenizer
from quantguard.core.errors import HardenError
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.harden.harden import HardenRequest, harden


def test_transposed_layers_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = tokenizer()
    config = GPT2Config(vocab_size=len(words), n_embd=64, n_layer=1, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    words.save_pretrained(tmp_path / "gpt2")
    request = HardenRequest(
        (Scheme.NF4,), (Prompt("who meets the old red wolf at the cave ?"),), steps=1, max_new_tokens=2
    )
    with pytest.raises(HardenError, match="no linear weight to harden"):
        harden(tmp_path / "gpt2", tmp_path / "out", request)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpt2"]
