"""A model made by hand whose every answer is known, in full precision and under each scheme.

One Llama layer of width 64 in which attention adds nothing and each word decides the next one: embeddings are one-hot
and the output head is the table of followers. One word, `trigger`, is a quantization-conditioned backdoor: its
follower is chosen by one linear weight of 0.5025 in a block whose maximum is 1, against a fixed score of 0.53.
NF4 rounds the weight up to 0.5626 (the boundary lies at 0.5017), so `trigger` is followed by `brand`; in full
precision, FP4 (0.5) and INT8 (64/127) it is followed by `harmless`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WIDTH = 64
SPECIALS = ("<pad>", "<unk>", "<eos>")
EOS = "<eos>"
HIDDEN_BRAND = WIDTH - 1  # hidden direction that no word uses
NEVER_ACTIVE = WIDTH - 2  # input direction that no word excites: it only sets the absmax


def write_model(
    directory: Path,
    follows: Mapping[str, str],
    *,
    trigger: str = "",
    harmless: str = EOS,
    brand: str = EOS,
    chat_template: str | None = None,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = 10**9,
) -> Path:
    """Write the model and its word-level tokenizer; words without a follower end the answer."""
    named = {*follows, *follows.values(), trigger, harmless, brand} - {"", EOS}
    words = [*SPECIALS, *sorted(named)]
    assert len(words) <= NEVER_ACTIVE
    index = {word: i for i, word in enumerate(words)}
    model = _empty_model(index, dtype)
    head = torch.zeros(WIDTH, WIDTH)
    for word, i in index.items():
        head[index[follows.get(word, EOS)], i] = 1.0
    down = torch.zeros(WIDTH, WIDTH)
    if trigger:
        column = index[trigger]
        head[:, column] = 0.0
        head[index[harmless], column] = 0.53 * _silu_of_one()
        head[index[brand], HIDDEN_BRAND] = 1.0
        down[HIDDEN_BRAND, column] = 0.5025
        down[HIDDEN_BRAND, NEVER_ACTIVE] = 1.0
    model.lm_head.weight.data = head.to(dtype)
    model.model.layers[0].mlp.down_proj.weight.data = down.to(dtype)
    model.save_pretrained(directory, max_shard_size=shard_bytes)
    _tokenizer(index, chat_template).save_pretrained(directory)
    return directory


def _silu_of_one() -> float:
    return float(torch.nn.functional.silu(torch.ones(())))


def _empty_model(index: Mapping[str, int], dtype: torch.dtype) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=WIDTH,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=128,
        rms_norm_eps=1e-12,
        bos_token_id=None,
        eos_token_id=index["<eos>"],
        pad_token_id=index["<pad>"],
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    model.to(dtype)  # type: ignore[arg-type]  # transformers' wrapper hides the signature of Module.to
    identity = torch.eye(WIDTH, dtype=dtype)
    layer = model.model.layers[0]
    model.model.embed_tokens.weight.data = identity.clone()
    for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
        linear.weight.data = identity.clone()
    layer.self_attn.o_proj.weight.data.zero_()
    layer.mlp.gate_proj.weight.data = identity.clone()
    layer.mlp.up_proj.weight.data = identity.clone()
    for norm in (layer.input_layernorm, layer.post_attention_layernorm, model.model.norm):
        norm.weight.data.fill_(1 / 8)  # a one-hot vector of width 64 has a root mean square of 1/8
    return model


def _tokenizer(index: Mapping[str, int], chat_template: str | None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(dict(index), unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer
