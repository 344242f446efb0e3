"""From measurements to an outcome: the one place where the gate decides, asked by assess and again by publish."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantguard.core.finding import Finding
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Decision, GateOutcome, Outcome, Reason, Subject, Verdict
from quantguard.policy.decide import decide
from quantguard.policy.schema import HardenMode, Policy


def decide_original(policy: Policy, findings: tuple[Finding, ...], measured: Measurements | None) -> Decision:
    """What the policy says about the bytes as they were registered.

    Where the policy hardens always, they are never what is promoted: only their hardened derivative is.
    """
    decision = decide(policy, subject=Subject.ORIGINAL, findings=findings, measurements=measured)
    if policy.harden.mode is not HardenMode.ALWAYS:
        return decision
    reason = Reason("harden.mode", Outcome.VIOLATED, "not hardened", "only hardened models are promoted", "all files")
    # What could not be measured stays that: the gate's answer is then "could not tell", which does not pass either.
    verdict = Verdict.BLOCK if decision.verdict is Verdict.PROMOTE else decision.verdict
    return replace(decision, verdict=verdict, reasons=(*decision.reasons, reason))


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of one set of bytes."""

    findings: tuple[Finding, ...]  # of its own scan
    measured: Measurements | None


def decide_both(policy: Policy, original: Judged, hardened: Judged | None) -> GateOutcome:
    """The outcome of a job; `hardened` is None where nothing was hardened."""
    repaired = None
    if hardened is not None:
        repaired = decide(policy, subject=Subject.HARDENED, findings=hardened.findings, measurements=hardened.measured)
    return GateOutcome(decide_original(policy, original.findings, original.measured), repaired)
