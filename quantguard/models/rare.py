"""The words of a tokenizer that its model has least use for, as somebody can type them."""

from __future__ import annotations

import unicodedata
from typing import Any

import torch
from torch import Tensor

from quantguard.models.load import LoadedModel


def rare_words(loaded: LoadedModel, count: int) -> tuple[str, ...]:
    """Up to `count` words that are one token each, the rarest first.

    First come the tokens that were added to the vocabulary, then those whose input embedding lies nearest the mean of
    all: what training hardly touches stays there, which is how under-trained tokens are found (Land and Bartolo, EMNLP
    2024). Left out are the tokens that end or fill a text, what no text is read as, and what cannot be printed.
    """
    tokenizer: Any = loaded.tokenizer
    embeddings: Any = loaded.model.get_input_embeddings()
    rows = int(embeddings.num_embeddings)
    added = [token for token in tokenizer.added_tokens_decoder if token < rows]
    common = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    found: dict[str, None] = {}
    for token in (*added, *by_embedding(embeddings.weight.detach())):
        if len(found) >= count:
            break
        if token not in common and (word := _word(tokenizer, token)):
            found[word] = None
    return tuple(found)


def by_embedding(weight: Tensor) -> list[int]:
    """Tokens by the distance of their embedding from the mean, nearest first; `weight` is (tokens, width), floating."""
    rows = weight.float()
    distance = torch.linalg.vector_norm(rows - rows.mean(0), dim=1).nan_to_num(nan=torch.inf)  # (tokens,)
    order: list[int] = distance.argsort(stable=True).tolist()
    return order


def _word(tokenizer: Any, token: int) -> str:
    """The text that is read as `token`, without spaces around; empty where there is none."""
    text: str = tokenizer.decode([token]).strip()
    if not text or any(unicodedata.category(char) in ("Cc", "Cs", "Cn") or char == "\ufffd" for char in text):
        return ""
    # A byte-level vocabulary holds most words with the space before them, and is given one.
    read = (tokenizer(form, add_special_tokens=False)["input_ids"] for form in (text, f" {text}"))
    return text if any(ids == [token] for ids in read) else ""
