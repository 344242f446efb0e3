"""What counterfactual rounding is asked, and what stands where it could not be measured. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from quantguard.core.measurement import Drift, Unmeasured
from quantguard.core.prompts import Prompt, prompts_digest
from quantguard.core.scheme import Scheme

COPIES: Final = 8  # randomly rounded; docs/decisions/0015-counterfactual.md says why


@dataclass(frozen=True, slots=True)
class CounterfactualRequest:
    """What to ask, and when to look closer."""

    prompts: tuple[Prompt, ...]  # not empty; asked without answers
    localise_above: float  # an interval that reaches above it is followed down to the blocks
    copies: int = COPIES


def unmeasured_drifts(request: CounterfactualRequest, schemes: Sequence[Scheme], reason: str) -> tuple[Drift, ...]:
    digest = prompts_digest(request.prompts)
    return tuple(Drift(scheme, Unmeasured(reason), digest) for scheme in schemes)
