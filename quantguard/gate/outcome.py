"""From measurements to an outcome: the one place where the gate decides, asked by assess and again by publish."""

from __future__ import annotations

from dataclasses import replace

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
    return replace(decision, verdict=Verdict.BLOCK, reasons=(*decision.reasons, reason))


def decide_both(
    policy: Policy, findings: tuple[Finding, ...], original: Measurements | None, hardened: Measurements | None
) -> GateOutcome:
    """The outcome of a job; `hardened` is None where nothing was hardened."""
    repaired = (
        None if hardened is None else decide(policy, subject=Subject.HARDENED, findings=findings, measurements=hardened)
    )
    return GateOutcome(decide_original(policy, findings, original), repaired)
