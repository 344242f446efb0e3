"""How many prompts a model answers at once: as many as fit into free memory, and no more than pay."""

from __future__ import annotations

from typing import Any, Final

from quantguard.models.load import LoadedModel
from quantguard.models.memory import free_memory

_PAYING: Final = {
    "cpu": 32,
    "cuda": 256,
}  # rows; more are hardly faster, and all wait for the last
_SHARE: Final = 0.8  # of what is free: allocators leave gaps
_LOGITS: Final = 3  # copies of the last position's, in float32, that decoding holds
_STATES: Final = 8  # tensors of the width of the model that a block holds at once
_GATED: Final = 3  # and of the width of its feed-forward layer


def paying_batch(device: str) -> int:
    """The most rows of a batch on `cpu` or `cuda:N`."""
    return _PAYING[device.partition(":")[0]]


def rows_that_fit(loaded: LoadedModel, prompt: int, new: int) -> int:
    """How many prompts of `prompt` tokens, each answered by `new`, fit beside the model; at least one.

    An estimate from above of keys and values, logits, and what the first pass over the prompts holds. Where it is too
    low all the same, the batch is halved (`generate`).
    """
    size = _row_bytes(loaded, prompt, new)
    return max(1, int(_SHARE * free_memory(loaded.device) / size))


def _row_bytes(loaded: LoadedModel, prompt: int, new: int) -> int:
    config: Any = loaded.model.config.get_text_config()
    number = loaded.model.dtype.itemsize  # bytes
    heads = _of(config, "num_attention_heads", "n_head")
    width = _of(config, "hidden_size", "n_embd")
    inner = _of(config, "intermediate_size", "n_inner") or 4 * width
    blocks = _of(config, "num_hidden_layers", "n_layer")
    head = getattr(config, "head_dim", None) or width // max(1, heads)
    entry = 2 * (_of(config, "num_key_value_heads") or heads) * head * number  # key and value of a token in one block
    cache = (blocks + 2) * entry * (prompt + new)  # a block's is copied as it grows
    scores = 4 * heads * prompt * prompt  # float32; fused kernels need none
    states = 4 * prompt * (_STATES * width + _GATED * inner)  # float32 where a norm or a softmax asks for it
    logits = 4 * _LOGITS * _of(config, "vocab_size")
    return max(1, cache + scores + states + logits)


def _of(config: Any, *names: str) -> int:
    """The first of `names` that the configuration has, 0 for none: architectures call the same by several."""
    found = next((value for name in names if isinstance(value := getattr(config, name, None), int)), 0)
    return max(0, found)
