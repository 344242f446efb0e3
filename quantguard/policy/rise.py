"""The policy's limit on the rise of perplexity under one scheme, and what it says about a measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from quantguard.core.measurement import Perplexity, Rise, TextLoss, Unmeasured
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.core.verdict import Outcome, Reason
from quantguard.core.wording import loss_text, percent, rise_text
from quantguard.policy.schema import PerplexityLimits

RULE: Final = "perplexity.max_rise"


@dataclass(frozen=True, slots=True)
class RiseLimit:
    """Perplexity must not be higher than that of the original in full precision by more than `max_rise`."""

    limits: PerplexityLimits
    scheme: Scheme | None  # None: full precision
    confidence: float  # that the interval must have at least

    def judge(self, found: Sequence[Perplexity], missing: str) -> Iterator[Reason]:
        """One reason for each measurement, as `UpperBound.judge`."""
        outcomes = {self._outcome(row.loss, row.rise) for row in found}
        outcomes = outcomes or {(Outcome.UNMEASURED, missing or "it was not measured")}
        limit = f"upper bound at most {percent(self.limits.max_rise)}"
        for outcome, said in sorted(outcomes, key=lambda each: (each[1], each[0].value)):
            yield Reason(RULE, outcome, said, limit, scheme_label(self.scheme))

    def _outcome(self, loss: TextLoss | Unmeasured, rise: Rise | Unmeasured) -> tuple[Outcome, str]:
        if isinstance(loss, Unmeasured):
            return Outcome.UNMEASURED, loss.reason
        if isinstance(rise, Unmeasured):
            return Outcome.UNMEASURED, rise.reason
        if problem := self._does_not_count(loss, rise):
            return Outcome.UNMEASURED, f"{problem}: {rise_text(rise)}"
        said = f"{rise_text(rise)}, {loss_text(loss)}"
        return (Outcome.MET if rise.upper <= self.limits.max_rise else Outcome.VIOLATED), said

    def _does_not_count(self, loss: TextLoss, rise: Rise) -> str:
        if not (loss.tokens and min(loss.tokens) > 0 and len(loss.nats) == len(loss.tokens)):
            return "no samples"
        if not all(0 <= nats < math.inf for nats in loss.nats):  # NaN fails too
            return "texts without a finite cost"
        if not -1 <= rise.lower <= rise.value <= rise.upper < math.inf:
            return "an interval that does not hold its value"
        if len(loss.tokens) < self.limits.samples:
            return f"{len(loss.tokens)} texts where the policy asks for {self.limits.samples}"
        # One minus alpha, computed, may miss the written number by a rounding.
        if not rise.confidence >= self.confidence - 1e-9:
            return f"an interval of {percent(rise.confidence)} where the policy asks for {percent(self.confidence)}"
        return ""
