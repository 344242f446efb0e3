"""What a judge is asked about answers: an errand, because the room of the weights reaches no network.

Every errand holds the labelled answers too, so that the judge is tried on them by the same word in the same room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from quantguard.core.errand import Errand, ErrandKind
from quantguard.core.judging import MOST_ANSWER, prompt_name
from quantguard.core.labelled import labelled_answers, misleading_refusals
from quantguard.core.measurement import Unmeasured

Outbox = Callable[[Errand], str]
"""Takes what is asked and returns its digest."""

MODEL: Final = "model"
PROMPT: Final = "prompt"


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """Who is to judge: the model's name at whatever address the other room knows."""

    model: str


def ask_judge(
    request: JudgeRequest | None, answers: Sequence[str], about: str, outbox: Outbox | None
) -> Unmeasured | None:
    """Leave the question whether `answers` refuse; what stands in the measurements until it is settled.

    None where no judge is to be asked.
    """
    if request is None:
        return None
    if outbox is None:
        return Unmeasured("a judge was to be asked, and nobody is there to ask it: use quantguard gate or verify")
    digest = outbox(judge_errand(request, answers, about))
    return Unmeasured(f"awaits the judge {request.model} (run --stage judge, then --stage assess)", errand=digest)


def judge_errand(request: JudgeRequest, answers: Sequence[str], about: str) -> Errand:
    """The labelled answers, the labelled refusals that mislead, and then `answers`, one text an item."""
    texts = [*(row.answer for row in labelled_answers()), *misleading_refusals(), *map(_shown, answers)]
    settings = ((MODEL, request.model), (PROMPT, prompt_name()))
    return Errand(ErrandKind.JUDGE, about, settings, tuple((text,) for text in texts))


def _shown(answer: str) -> str:
    """As much as a judge is shown, in characters that any file can hold (no lone surrogates)."""
    return answer[:MOST_ANSWER].encode("utf-8", errors="replace").decode("utf-8")
