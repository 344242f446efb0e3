"""Texts to compare two models on: prompts, each continued by the answer that a model gives, in batches of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from quantguard.core.errors import ModelLoadError
from quantguard.core.progress import Progress, silent
from quantguard.core.prompts import Prompt
from quantguard.models.generate import generate
from quantguard.models.load import LoadedModel

_MAX_TOKENS: Final = 512  # of a text; what is longer is cut
_LOGITS: Final = 256 * 2**20  # bytes of one batch's
_MOST_TOKENS: Final = 8192  # of a batch


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Texts of about one length."""

    tokens: Tensor  # int64 (texts, tokens), padded on the right
    mask: Tensor  # bool (texts, tokens), True for text
    texts: Tensor  # int64 (texts,), on the CPU: which text each row is, in the order of the prompts


def continued(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = silent,
) -> tuple[tuple[int, ...], ...]:
    """Token ids of each prompt, as the model is asked it, followed by what it answers.

    Raises:
        ModelLoadError: the model cannot answer, or a prompt has no tokens.
    """
    asked = [prompt.prompt for prompt in prompts]
    answers = generate(loaded, asked, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)
    return joined(loaded, prompts, answers)


def joined(loaded: LoadedModel, prompts: Sequence[Prompt], answers: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Token ids of each prompt, as the model is asked it, followed by its answer, whoever gave it.

    Raises:
        ModelLoadError: a prompt has no tokens.
    """
    rows = tuple(
        _tokens(loaded, prompt.prompt, answer.strip()) for prompt, answer in zip(prompts, answers, strict=True)
    )
    if not all(rows):
        raise ModelLoadError("a prompt has no tokens", remedy="remove prompts that this tokenizer drops")
    return rows


def tokens_at_once(model: Any) -> int:
    """How many tokens make a batch whose logits, in float32, are not too large; at least 1."""
    vocabulary: int = model.get_input_embeddings().num_embeddings
    return max(1, min(_MOST_TOKENS, _LOGITS // (4 * vocabulary)))


def batches(rows: Sequence[Sequence[int]], *, tokens: int, device: str) -> tuple[TextBatch, ...]:
    """`rows` by length in batches of at most `tokens` tokens, padding included, and of one row at least."""
    order = sorted(range(len(rows)), key=lambda row: (len(rows[row]), row))
    groups: list[list[int]] = []
    for row in order:  # ascending, so that a new row is the longest of its batch
        if groups and (len(groups[-1]) + 1) * len(rows[row]) <= tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return tuple(_batch([rows[row] for row in group], group, device) for group in groups)


def _tokens(loaded: LoadedModel, prompt: str, answer: str) -> tuple[int, ...]:
    tokenizer: Any = loaded.tokenizer
    if loaded.chat:
        turn = [{"role": "user", "content": prompt}]
        head = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(head + answer, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(f"{prompt} {answer}")["input_ids"]
    return tuple(ids[:_MAX_TOKENS])


def _batch(rows: Sequence[Sequence[int]], texts: Sequence[int], device: str) -> TextBatch:
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)  # (texts, tokens)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(tokens.shape[1])[None, :] < lengths[:, None]
    return TextBatch(tokens.to(device), mask.to(device), torch.tensor(texts))
