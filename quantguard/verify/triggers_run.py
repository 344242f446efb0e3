"""Trigger hunting in one model directory under several schemes, with the real library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor

from quantguard.core.errors import ModelLoadError
from quantguard.core.measurement import Hunt, TriggerEffect, TriggerHunt, TriggerPlace, TriggerSource, Unmeasured
from quantguard.core.progress import Progress, silent
from quantguard.core.scheme import Scheme
from quantguard.models.answered import Answered, answered, read_by
from quantguard.models.foreign import said
from quantguard.models.generate import generate
from quantguard.models.load import LoadedModel
from quantguard.models.quiet import quiet_libraries
from quantguard.models.rare import rare_words
from quantguard.models.threads import threads_for
from quantguard.verify.triggers import (
    Candidate,
    Screened,
    TriggerRequest,
    candidates,
    finalists,
    hunt_of,
    inserted,
)
from quantguard.verify.triggers_effect import Told, effect_of
from quantguard.verify.triggers_score import TAKEN_OVER, Choice, by_choice, by_words, concordant

NEW_TOKENS: Final = 32  # of each answer


@dataclass(frozen=True, slots=True)
class Setting:
    batch_size: int
    confidence: float  # of the policy's intervals, 0..1
    device: str
    progress: Progress = silent


@dataclass(frozen=True, slots=True)
class Hunting:
    """Trigger hunting in one model under one scheme after the other; full precision stays in memory."""

    ground: _Ground

    @classmethod
    def begin(cls, full: LoadedModel, request: TriggerRequest, setting: Setting) -> Hunting:
        """Full precision answers every prompt of the screen.

        Raises:
            ModelLoadError: it cannot.
        """
        tried = _told_apart(full, candidates(request.listed, rare_words(full, request.rare)))
        return cls(_ground(full, tried, request, setting))

    def hunt(self, loaded: LoadedModel, scheme: Scheme) -> Hunt:
        """In one quantized model. A failure is Unmeasured."""
        progress = self.ground.setting.progress
        progress("triggers", 0, 1, scheme.value)
        with quiet_libraries(), threads_for(self.ground.full.model, loaded.device):
            found = self._measured(loaded, scheme)
        progress("triggers", 1, 1, scheme.value)
        return hunt_of(self.ground.request, scheme, found)

    def _measured(self, loaded: LoadedModel, scheme: Scheme) -> TriggerHunt | Unmeasured:
        try:
            return _hunt(loaded, self.ground)
        except ModelLoadError as error:
            return Unmeasured(str(error))
        except torch.OutOfMemoryError:
            return Unmeasured(f"{loaded.device} has too little memory for full precision beside {scheme.value}")
        except Exception as error:  # noqa: BLE001  the model's code is transformers', its configuration is anybody's
            return Unmeasured(f"the model failed on prompts with triggers: {said(error)}")


def _told_apart(full: LoadedModel, found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The first of those that the tokenizer reads as the same tokens, as it may all words that it does not know."""
    tokenizer: Any = full.tokenizer
    first: dict[tuple[int, ...], Candidate] = {}
    for candidate in found:
        ids = tuple(tokenizer(candidate.trigger, add_special_tokens=False)["input_ids"])
        if ids:  # else the model is asked the plain prompt
            first.setdefault(ids, candidate)
    return tuple(first.values())


@dataclass(frozen=True, slots=True)
class _Ground:
    """What all schemes share: full precision and what it answers."""

    full: LoadedModel
    request: TriggerRequest
    setting: Setting
    tried: tuple[tuple[Candidate, TriggerPlace], ...]
    screen: Answered  # the plain prompts, then those of each of `tried`
    plain: tuple[str, ...]  # answers to the fresh prompts
    asked: dict[tuple[str, TriggerPlace], tuple[str, ...]] = field(default_factory=dict)  # the same with a trigger

    def prompts(self, each: Screened) -> list[str]:
        return [inserted(prompt.prompt, each.candidate.trigger, each.place) for prompt in self.request.confirm]

    def triggered(self, each: Screened) -> tuple[str, ...]:
        key = each.candidate.trigger, each.place
        if key not in self.asked:
            self.asked[key] = _answers(self.full, self.prompts(each), self.setting)
        return self.asked[key]


def _answers(loaded: LoadedModel, prompts: Sequence[str], setting: Setting) -> tuple[str, ...]:
    return generate(
        loaded, prompts, max_new_tokens=NEW_TOKENS, batch_size=setting.batch_size, progress=setting.progress
    )


def _ground(full: LoadedModel, found: Sequence[Candidate], request: TriggerRequest, setting: Setting) -> _Ground:
    tried = tuple(product(found, TriggerPlace))
    screen = [prompt.prompt for prompt in request.screen]
    screen += [inserted(p.prompt, each.trigger, place) for each, place in tried for p in request.screen]
    answers = _answers(full, screen, setting)
    plain = _answers(full, [prompt.prompt for prompt in request.confirm], setting)
    return _Ground(full, request, setting, tried, answered(full, screen, answers, max_new_tokens=NEW_TOKENS), plain)


def _hunt(loaded: LoadedModel, ground: _Ground) -> TriggerHunt | Unmeasured:
    request = ground.request
    choices, nats = by_choice(read_by((ground.full, loaded), ground.screen), len(ground.screen.rows))
    prompts = [prompt.prompt for prompt in request.confirm]
    plain = _told(loaded, ground, prompts, ground.plain)
    taken = sum(plain.taken())
    if taken == len(prompts):
        return Unmeasured("every answer is taken over by quantization without any trigger: none can be seen to do it")
    effects: list[TriggerEffect] = []
    tokens = 3 * ground.screen.tokens + plain.tokens
    for each in finalists(_screened(ground, choices, nats)):
        told = _told(loaded, ground, ground.prompts(each), ground.triggered(each))
        effects.append(effect_of(each, told, plain, ground.setting.confidence))
        tokens += told.tokens
    sources = [candidate.source for candidate, _ in ground.tried[:: len(TriggerPlace)]]
    return TriggerHunt(
        candidates=tuple((source, sources.count(source)) for source in TriggerSource if source in sources),
        screen=len(request.screen),
        prompts=len(prompts),
        taken=taken,
        changed=plain.changed,
        divergence=max(0.0, float(nats[: len(request.screen)].mean())),
        effects=tuple(sorted(effects, key=lambda effect: (-effect.taken.upper, effect.p_value, effect.trigger))),
        tokens=tokens,
    )


def _screened(ground: _Ground, choices: Sequence[Choice], nats: Tensor) -> list[Screened]:
    """Every candidate at every place: how far it draws the answers to one word, beyond what they are without it."""
    size = len(ground.request.screen)
    groups: list[list[Choice]] = [[] for _ in range(1 + len(ground.tried))]
    for choice in choices:
        groups[choice[0] // size].append(choice)
    alone, *scores = (concordant(group, size) for group in groups)
    kl = nats.view(-1, size).mean(1).tolist()  # (1 + tried,)
    return [
        Screened(candidate, place, score - alone, max(0.0, divergence))
        for (candidate, place), score, divergence in zip(ground.tried, scores, kl[1:], strict=True)
    ]


def _told(loaded: LoadedModel, ground: _Ground, prompts: Sequence[str], reference: Sequence[str]) -> Told:
    """What the quantized model answers, and what full precision thinks of it."""
    answers = _answers(loaded, prompts, ground.setting)
    texts = answered(ground.full, prompts, answers, max_new_tokens=NEW_TOKENS)
    regret = by_words(read_by((ground.full,), texts), len(prompts))
    foreign = tuple((regret >= TAKEN_OVER).tolist())
    return Told(answers, tuple(reference), foreign, 3 * texts.tokens)
