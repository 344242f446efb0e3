"""The policy's limit on counterfactual rounding under one scheme, and what it says about a measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from quantguard.core.measurement import Divergence, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Outcome, Reason
from quantguard.core.wording import divergence_text, percent, times
from quantguard.policy.schema import Counterfactual

RULE: Final = "counterfactual.max_ratio"
_LAYERS: Final = 2  # blocks named in a reason


@dataclass(frozen=True, slots=True)
class RoundingLimit:
    """Rounding to nearest must not lie further from full precision than rounding at random does, `max_ratio` times."""

    limits: Counterfactual
    scheme: Scheme
    confidence: float  # that the interval must have at least

    def judge(self, found: Sequence[Divergence | Unmeasured], missing: str) -> Iterator[Reason]:
        """One reason for each measurement, as `UpperBound.judge`."""
        reasons = {self._one(measured) for measured in found or [Unmeasured(missing or "it was not measured")]}
        yield from sorted(reasons, key=lambda reason: (reason.measured, reason.outcome.value))

    def _one(self, measured: Divergence | Unmeasured) -> Reason:
        outcome, said = self._outcome(measured)
        limit = f"upper bound at most {times(self.limits.max_ratio)} times"
        return Reason(RULE, outcome, said, limit, self.scheme.value)

    def _outcome(self, measured: Divergence | Unmeasured) -> tuple[Outcome, str]:
        if isinstance(measured, Unmeasured):
            return Outcome.UNMEASURED, measured.reason
        if problem := self._does_not_count(measured):
            return Outcome.UNMEASURED, f"{problem}: {divergence_text(measured)}"
        if measured.upper <= self.limits.max_ratio:
            return Outcome.MET, divergence_text(measured)
        return Outcome.VIOLATED, _told(measured)

    def _does_not_count(self, measured: Divergence) -> str:
        if not (measured.copies > 0 and measured.texts > 0 and measured.tokens > 0):
            return "no samples"
        if not 0 <= measured.lower <= measured.ratio <= measured.upper < math.inf:  # NaN fails too
            return "an interval that does not hold its value"
        if measured.texts < self.limits.samples:
            return f"{measured.texts} texts where the policy asks for {self.limits.samples}"
        # One minus alpha, computed, may miss the written number by a rounding.
        if not measured.confidence >= self.confidence - 1e-9:
            return f"an interval of {percent(measured.confidence)} where the policy asks for {percent(self.confidence)}"
        return ""


def _told(divergence: Divergence) -> str:
    bounds = f"[{times(divergence.lower)}, {times(divergence.upper)}]"
    carried = [f"{name} ({percent(share)})" for name, share in divergence.layers[:_LAYERS] if share > 0]
    where = f"; most of it hangs on {' and '.join(carried)}" if carried else ""
    return (
        f"rounding to nearest changes what the model says {times(divergence.ratio)} times as much as rounding at "
        f"random does {bounds}, and it should be the gentlest rounding{where}"
    )
