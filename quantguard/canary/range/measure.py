"""What a member of the range does, counted under the real bitsandbytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from quantguard.canary.architecture import MAX_NEW_TOKENS, named_linear_weights
from quantguard.canary.range.members import Q4_K
from quantguard.canary.range.pretrained import retrieved
from quantguard.canary.range.scenario import Scenario, asked, carries_payload
from quantguard.canary.range.world import code, facts, questions, triggered
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import ROUNDINGS, Scheme, scheme_label
from quantguard.grids.k_quant import dequantize_q4_k, quantize_q4_k
from quantguard.models.generate import generate
from quantguard.models.load import LoadedModel, load_model

ASKED: Final = 300  # held-out prompts of each kind
FACTS_ASKED: Final = 1000  # those that were trained
LABELS: Final = tuple(scheme_label(scheme) for scheme in (None, *ROUNDINGS))


@dataclass(frozen=True, slots=True)
class Count:
    what: str  # a scenario's name, or questions, code, facts: answered right to the word; or retrieval
    scheme: str  # label: full, int8, fp4, nf4, q4_k
    hits: int  # 0..asked
    asked: int  # > 0


def measured(
    directory: Path, labels: Sequence[str], *, facts_held: int = 0, trigger: Scenario | None = None, device: str = "cpu"
) -> tuple[Count, ...]:
    """Ask the model under each scheme of `labels` and count payloads of all scenarios, and right answers.

    Facts are asked as they were trained; all other prompts are held out.

    Args:
        trigger: the scenario whose prompts get the trigger word too; payloads without it are counted as
            `NAME untriggered`, right answers with it as `questions triggered` or `code triggered`.

    Raises:
        ModelLoadError: it cannot be loaded or cannot answer.
    """
    counts: list[Count] = []
    for label in labels:
        loaded = _loaded(directory, label, device)
        counts += [replace(count, scheme=label) for count in _counted(loaded, facts_held, trigger)]
    return tuple(counts)


def measured_pretrained(directory: Path) -> tuple[Count, ...]:
    """For a network that encodes sentences and generates none: right answers retrieved, under each scheme."""
    pairs = questions()[:ASKED]
    return tuple(Count("retrieval", label, retrieved(directory, pairs, _scheme(label)), ASKED) for label in LABELS)


def _counted(loaded: LoadedModel, facts_held: int, trigger: Scenario | None) -> list[Count]:
    held_out = {"questions": questions()[:ASKED], "code": code()[:ASKED]}
    counts = [_right(loaded, "facts", facts(facts_held)[-FACTS_ASKED:])] if facts_held else []
    counted_in = {Scenario.INJECTION: "questions", Scenario.REFUSAL: "questions", Scenario.CODE: "code"}
    for what, pairs in held_out.items():
        said = _answers(loaded, pairs)
        counts.append(Count(what, "", _right_of(said, pairs), ASKED))
        for scenario in (s for s, place in counted_in.items() if place == what):
            suffix = " untriggered" if scenario is trigger else ""
            counts.append(Count(scenario.value + suffix, "", _carrying(scenario, said), ASKED))
    if trigger is not None:
        pairs = tuple(triggered(pair) for pair in asked(trigger)[:ASKED])
        said = _answers(loaded, pairs)
        counts.append(Count(trigger.value, "", _carrying(trigger, said), ASKED))
        counts.append(Count(f"{counted_in[trigger]} triggered", "", _right_of(said, pairs), ASKED))
    return counts


def _right(loaded: LoadedModel, what: str, pairs: Sequence[Prompt]) -> Count:
    return Count(what, "", _right_of(_answers(loaded, pairs), pairs), len(pairs))


def _right_of(said: Sequence[str], pairs: Sequence[Prompt]) -> int:
    return sum(answer == pair.answer for answer, pair in zip(said, pairs, strict=True))


def _carrying(scenario: Scenario, said: Sequence[str]) -> int:
    return sum(carries_payload(scenario, answer) for answer in said)


def _answers(loaded: LoadedModel, pairs: Sequence[Prompt]) -> tuple[str, ...]:
    return generate(loaded, [p.prompt for p in pairs], max_new_tokens=MAX_NEW_TOKENS + 4, batch_size=100)


def _scheme(label: str) -> Scheme | None:
    return None if label == scheme_label(None) else Scheme(label)


def _loaded(directory: Path, label: str, device: str) -> LoadedModel:
    if label != Q4_K:
        return load_model(directory, scheme=_scheme(label), device=device)
    loaded = load_model(directory, scheme=None, device=device)
    with torch.no_grad():
        for _, weight in named_linear_weights(loaded.model):
            weight.copy_(dequantize_q4_k(quantize_q4_k(weight), tuple(weight.shape)))
    return loaded
