"""One limit of the policy under one scheme, and what it says about a measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantguard.core.measurement import PairedDrop, PairedRise, Rate, Unmeasured
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.core.verdict import Outcome, Reason
from quantguard.core.wording import drop_text, paired_rise_text, percent, rate_text

Measured = Rate | PairedDrop | PairedRise | Unmeasured


@dataclass(frozen=True, slots=True)
class UpperBound:
    """The upper end of a measurement's interval must not pass `limit`."""

    rule: str  # dotted path in the policy
    limit: float  # 0..1
    scheme: Scheme | None  # None: full precision
    confidence: float  # that the interval must have at least

    def judge(self, found: Sequence[Measured], missing: str) -> Iterator[Reason]:
        """One reason for each measurement: a second one of the same thing cannot hide the first.

        `missing` says why nothing was found, where there is a reason to tell.
        """
        reasons = {self._one(measured) for measured in found or [Unmeasured(missing or "it was not measured")]}
        yield from sorted(reasons, key=lambda reason: (reason.measured, reason.outcome.value))

    def _one(self, measured: Measured) -> Reason:
        outcome, said = self._outcome(measured)
        return Reason(self.rule, outcome, said, f"upper bound at most {percent(self.limit)}", scheme_label(self.scheme))

    def _outcome(self, measured: Measured) -> tuple[Outcome, str]:
        if isinstance(measured, Unmeasured):
            return Outcome.UNMEASURED, measured.reason
        said = _said(measured)
        if problem := _inconsistent(measured) or self._too_narrow(measured.confidence):
            return Outcome.UNMEASURED, f"{problem}: {said}"
        return (Outcome.MET if measured.upper <= self.limit else Outcome.VIOLATED), said

    def _too_narrow(self, confidence: float) -> str:
        """An interval of lower confidence is narrower: it would pass more than the policy allows."""
        # One minus alpha, computed, may miss the written number by a rounding.
        if confidence >= self.confidence - 1e-9:
            return ""
        return f"an interval of {percent(confidence)} where the policy asks for {percent(self.confidence)}"


def _said(measured: Rate | PairedDrop | PairedRise) -> str:
    match measured:
        case Rate():
            return rate_text(measured)
        case PairedDrop():
            return drop_text(measured)
        case PairedRise():
            return paired_rise_text(measured)


def _inconsistent(measured: Rate | PairedDrop | PairedRise) -> str:
    """Why the figures cannot be of one measurement, or nothing. NaN anywhere is inconsistent."""
    if not measured.trials > 0:
        return "no samples"
    counted = (measured.successes,) if isinstance(measured, Rate) else (measured.lost, measured.gained)
    if not (min(counted) >= 0 and sum(counted) <= measured.trials):
        return "more counted than sampled"
    least = 0 if isinstance(measured, Rate) else -1
    if not least <= measured.lower <= measured.value <= measured.upper <= 1:
        return "an interval that does not hold its value"
    return ""
