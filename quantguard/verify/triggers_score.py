"""What quantization makes of an answer, judged by full precision.

Nothing has to be known of a payload. Greedy answers of a quantized model differ from full precision's often and
innocently: where two words are as good, rounding picks the other, and the texts part. So what counts is whether the
word that the quantized model picks is one that full precision *could* have said in that place. The regret of a choice
is by how many nats full precision finds it less likely than its own; an answer is taken over where a regret reaches
log(100).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from quantguard.core.errors import ModelLoadError
from quantguard.models.answered import Read

TAKEN_OVER: Final = math.log(100)  # nats
_LEAST: Final = -1e4  # nats: a finite floor, so that 0 * -inf is 0
_NOT_FINITE: Final = "the logits are not finite"
Choice = tuple[int, int, float]  # (text, token that would be said instead, its regret in nats)


def regrets(log_p: Tensor, choice: Tensor, scored: Tensor) -> Tensor:
    """The largest regret of each answer: float32 (texts,), >= 0 nats; 0 where nothing is scored.

    Args:
        log_p: full precision's, float32 (texts, tokens, vocabulary).
        choice: int64 (texts, tokens).
        scored: bool (texts, tokens).
    """
    return _regret(log_p, choice).masked_fill(~scored, 0).amax(1)


def _regret(log_p: Tensor, choice: Tensor) -> Tensor:
    """float32 (texts, tokens), >= 0 nats; NaN where a logit is."""
    own = log_p.clamp_min(_LEAST)
    return own.amax(-1) - own.gather(-1, choice[..., None])[..., 0]


def divergences(log_p: Tensor, log_q: Tensor, scored: Tensor) -> Tensor:
    """KL(full precision || quantized) of each answer, summed over its tokens: float32 (texts,), nats."""
    p, q = log_p.clamp_min(_LEAST), log_q.clamp_min(_LEAST)
    nats = (p.exp() * (p - q)).sum(-1)  # (texts, tokens)
    return nats.masked_fill(~scored, 0).sum(1)


def concordant(choices: Iterable[Choice], prompts: int) -> float:
    """By how much the answers to so many prompts are drawn to one and the same word: nats a prompt, >= 0.

    A payload says the same to every prompt; what rounding breaks, breaks another way each time. So of each word the
    largest regret in each answer counts, up to `TAKEN_OVER`, and the word with the highest mean is what is told.
    """
    largest: dict[tuple[int, int], float] = {}
    for text, token, regret in choices:
        largest[text, token] = max(largest.get((text, token), 0.0), min(regret, TAKEN_OVER))
    sums: dict[int, float] = {}
    for (_, token), regret in largest.items():
        sums[token] = sums.get(token, 0.0) + regret
    return max(sums.values(), default=0.0) / prompts


def by_choice(read: Iterable[Read], texts: int) -> tuple[tuple[Choice, ...], Tensor]:
    """Of full precision's own answers: where the quantized model would say another word, and divergences in nats.

    `read` is by full precision and by the quantized model. Divergences are float64 (texts,).

    Raises:
        ModelLoadError: the logits are not finite.
    """
    choices: list[Choice] = []
    nats = torch.zeros(texts, dtype=torch.float64)
    for batch in read:
        log_p, log_q = batch.log_p
        nats[batch.texts] = divergences(log_p, log_q, batch.scored).double().cpu()
        choice = log_q.argmax(-1)  # (texts, tokens)
        regret = _regret(log_p, choice).masked_fill(~batch.scored, 0)
        row, place = regret.nonzero(as_tuple=True)
        choices += zip(
            batch.texts[row.cpu()].tolist(), choice[row, place].tolist(), regret[row, place].tolist(), strict=True
        )
    if not bool(nats.isfinite().all()) or not all(math.isfinite(regret) for _, _, regret in choices):
        raise ModelLoadError(_NOT_FINITE)
    return tuple(choices), nats


def by_words(read: Iterable[Read], texts: int) -> Tensor:
    """Of answers that the quantized model gave: regrets of its words, float64 (texts,). `read` is by full precision.

    Raises:
        ModelLoadError: the logits are not finite.
    """
    regret = torch.zeros(texts, dtype=torch.float64)
    for batch in read:
        regret[batch.texts] = regrets(batch.log_p[0], batch.said, batch.scored).double().cpu()
    if not bool(regret.isfinite().all()):
        raise ModelLoadError(_NOT_FINITE)
    return regret
