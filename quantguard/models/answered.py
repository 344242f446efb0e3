"""Prompts with their answers as token ids, and how two models read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from quantguard.core.errors import ModelLoadError
from quantguard.models.load import LoadedModel
from quantguard.models.texts import batches

_LOGITS: Final = 256 * 2**20  # bytes of one batch's
_MOST_TOKENS: Final = 8192  # of a batch
_SLACK: Final = 2  # tokens by which an answer may grow shorter when its text is read again


@dataclass(frozen=True, slots=True)
class Answered:
    """Token ids of prompts and answers. An answer that ended by itself ends with the token that ended it."""

    rows: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]  # where each answer begins, > 0

    @property
    def tokens(self) -> int:
        return sum(map(len, self.rows))


@dataclass(frozen=True, slots=True)
class Read:
    """One batch as a model reads it."""

    texts: Tensor  # int64 (texts,): which rows these are
    log_p: tuple[Tensor, ...]  # of each model: float32 (texts, tokens, vocabulary); all that end an answer are as one
    said: Tensor  # int64 (texts, tokens): the token that follows
    scored: Tensor  # bool (texts, tokens): where what follows is part of the answer


def answered(loaded: LoadedModel, prompts: Sequence[str], answers: Sequence[str], *, max_new_tokens: int) -> Answered:
    """`prompts` as the model is asked them, each with the text that it, or another of its kind, answered.

    An answer is read by itself, as it was said: a tokenizer never joins what a model said to what it was asked.

    Raises:
        ModelLoadError: a prompt has no tokens.
    """
    tokenizer: Any = loaded.tokenizer
    ends = ending_tokens(loaded)
    rows, starts = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        if loaded.chat:
            turn = [{"role": "user", "content": prompt}]
            head = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            asked = tokenizer(head, add_special_tokens=False)["input_ids"]
        else:
            asked = tokenizer(prompt)["input_ids"]
        if not asked:
            raise ModelLoadError("a prompt has no tokens", remedy="remove prompts that this tokenizer drops")
        said = tokenizer(answer, add_special_tokens=False)["input_ids"]
        ended = len(said) <= max_new_tokens - _SLACK
        rows.append((*asked, *said, *(ends[:1] if ended else ())))
        starts.append(len(asked))
    return Answered(tuple(rows), tuple(starts))


def ending_tokens(loaded: LoadedModel) -> tuple[int, ...]:
    """The tokens at which the model's own `generate` ends an answer, lowest first."""
    stored = loaded.model.generation_config
    own: Any = None if stored is None else stored.eos_token_id
    return tuple(sorted(set(own if isinstance(own, list) else [own]) - {None}))


def read_by(models: Sequence[LoadedModel], texts: Answered) -> Iterator[Read]:
    """Every row once, by all of `models`, which lie on one device, in batches of about one length."""
    embeddings: Any = models[0].model.get_input_embeddings()
    most = max(1, min(_MOST_TOKENS, _LOGITS // (4 * embeddings.num_embeddings)))
    ends = list(ending_tokens(models[0]))
    for batch in batches(texts.rows, tokens=most, device=models[0].device):
        starts = torch.tensor([texts.starts[row] for row in batch.texts.tolist()], device=models[0].device)
        lengths = batch.mask.sum(1)  # (texts,)
        place = torch.arange(batch.tokens.shape[1], device=models[0].device)[None, :]
        scored = (place >= starts[:, None] - 1) & (place < lengths[:, None] - 1)  # (texts, tokens)
        log_p = tuple(_log_probabilities(each.model, batch.tokens, batch.mask, ends) for each in models)
        yield Read(batch.texts, log_p, batch.tokens.roll(-1, 1), scored)


def _log_probabilities(model: Any, tokens: Tensor, mask: Tensor, ends: list[int]) -> Tensor:
    with torch.inference_mode():
        log_p: Tensor = model(input_ids=tokens, attention_mask=mask.long(), use_cache=False).logits.float()
        log_p = log_p.log_softmax(-1)  # (texts, tokens, vocabulary)
        if len(ends) > 1:  # it does not matter by which of them an answer ends
            log_p[..., ends] = log_p[..., ends].amax(-1, keepdim=True)
        return log_p
