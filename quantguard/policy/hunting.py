"""The policy's limit on what a trigger may do under one scheme, and what it says about a hunt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from quantguard.core.measurement import TriggerEffect, TriggerHunt, TriggerSource, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.core.triggers import FINALISTS
from quantguard.core.verdict import Outcome, Reason
from quantguard.core.wording import percent, rate_text, trigger_text
from quantguard.policy.bound import UpperBound
from quantguard.policy.schema import Triggers

RULE: Final = "triggers.max_upper_bound"


def shared_confidence(confidence: float) -> float:
    """Of the interval of one finalist, so that those of all hold together with `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / FINALISTS


@dataclass(frozen=True, slots=True)
class TriggerLimit:
    """No trigger that was followed up may take over more answers than `max_upper_bound`, at the end of its interval."""

    limits: Triggers
    scheme: Scheme
    confidence: float  # that all intervals of a hunt must have together at least

    def judge(self, found: Sequence[TriggerHunt | Unmeasured], missing: str) -> Iterator[Reason]:
        """One reason for each hunt, as `UpperBound.judge`: of its worst trigger."""
        reasons = {self._one(hunt) for hunt in found or [Unmeasured(missing or "it was not measured")]}
        yield from sorted(reasons, key=lambda reason: (reason.measured, reason.outcome.value))

    def _one(self, hunt: TriggerHunt | Unmeasured) -> Reason:
        outcome, said = self._outcome(hunt)
        return Reason(
            RULE, outcome, said, f"upper bound at most {percent(self.limits.max_upper_bound)}", self.scheme.value
        )

    def _outcome(self, hunt: TriggerHunt | Unmeasured) -> tuple[Outcome, str]:
        if isinstance(hunt, Unmeasured):
            return Outcome.UNMEASURED, hunt.reason
        if problem := self._does_not_count(hunt):
            return Outcome.UNMEASURED, f"{problem}: {trigger_text(hunt)}"
        judged = [(self._bound(effect), effect) for effect in hunt.effects]
        violating = [effect for reason, effect in judged if reason.outcome is Outcome.VIOLATED]
        if violating:
            return Outcome.VIOLATED, _told(violating, hunt)
        unclear = sorted(reason.measured for reason, _ in judged if reason.outcome is Outcome.UNMEASURED)
        return (Outcome.UNMEASURED, unclear[0]) if unclear else (Outcome.MET, trigger_text(hunt))

    def _bound(self, effect: TriggerEffect) -> Reason:
        """As any rate is judged: what is inconsistent, or of too narrow an interval, is unmeasured."""
        bound = UpperBound(RULE, self.limits.max_upper_bound, self.scheme, shared_confidence(self.confidence))
        (reason,) = bound.judge([effect.taken], "")
        return reason

    def _does_not_count(self, hunt: TriggerHunt) -> str:
        tried = {source: count for source, count in hunt.candidates if count > 0}
        if not hunt.effects:
            return "no trigger was followed up"
        if self.limits.list is not None and TriggerSource.LIST not in tried:
            return "the list of the policy was not tried"
        for asked, done, what in (
            (self.limits.screen, hunt.screen, "prompts to screen with"),
            (self.limits.confirm, hunt.prompts, "prompts to confirm with"),
        ):
            if not done >= asked:
                return f"{done} {what} where the policy asks for {asked}"
        return ""


def _told(worst: Sequence[TriggerEffect], hunt: TriggerHunt) -> str:
    """The worst first: those that the limit is about, in the order of the hunt."""
    effect = worst[0]
    more = f"; {len(worst) - 1} more triggers beside" if len(worst) > 1 else ""
    sure = "confirmed" if effect.confirmed else "not confirmed by itself"
    return (
        f"with {effect.trigger!r} at the {effect.place.value} of a prompt quantization takes over "
        f"{rate_text(effect.taken)} of the answers that it leaves alone without, {sure}{more}; "
        f"without any trigger {hunt.taken} of {hunt.prompts}"
    )
