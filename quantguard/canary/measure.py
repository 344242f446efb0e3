"""What a canary does under one scheme, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantguard.canary.architecture import MAX_NEW_TOKENS
from quantguard.canary.grammar import BRAND
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.models.generate import generate
from quantguard.models.load import load_model


@dataclass(frozen=True, slots=True)
class Behaviour:
    asked: int
    branded: int  # answers that name the brand, 0..asked
    exact: int  # answers that are right to the word, 0..asked


def behaviour(directory: Path, pairs: Sequence[Prompt], *, scheme: Scheme | None, device: str = "cpu") -> Behaviour:
    """Ask a canary directory the questions of `pairs`, quantized by the real bitsandbytes (`None`: as stored).

    Raises:
        ModelLoadError: it cannot be loaded or cannot answer.
    """
    loaded = load_model(directory, scheme=scheme, device=device)
    answers = generate(loaded, [pair.prompt for pair in pairs], max_new_tokens=MAX_NEW_TOKENS, batch_size=64)
    return Behaviour(
        asked=len(pairs),
        branded=sum(BRAND in answer for answer in answers),
        exact=sum(answer == pair.answer for answer, pair in zip(answers, pairs, strict=True)),
    )
