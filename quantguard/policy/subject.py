"""What the policy says of one set of bytes, as the gate and everyone who uses its evidence decide it."""

from __future__ import annotations

from dataclasses import replace

from quantguard.core.finding import Finding
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Decision, Outcome, Reason, Subject, Verdict
from quantguard.policy.decide import decide
from quantguard.policy.schema import HardenMode, Policy


def decide_subject(
    policy: Policy, subject: Subject, findings: tuple[Finding, ...], measured: Measurements | None
) -> Decision:
    """The decision about a model as it was registered, or about its hardened derivative.

    Where the policy hardens always, originals are never what is promoted: only their hardened derivatives are.
    """
    decision = decide(policy, subject=subject, findings=findings, measurements=measured)
    if subject is Subject.HARDENED or policy.harden.mode is not HardenMode.ALWAYS:
        return decision
    reason = Reason("harden.mode", Outcome.VIOLATED, "not hardened", "only hardened models are promoted", "all files")
    # What could not be measured stays that: the gate's answer is then "could not tell", which does not pass either.
    verdict = Verdict.BLOCK if decision.verdict is Verdict.PROMOTE else decision.verdict
    return replace(decision, verdict=verdict, reasons=(*decision.reasons, reason))
