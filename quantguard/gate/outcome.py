"""From measurements to an outcome: the one place where the gate decides, asked by assess and again by publish."""

from __future__ import annotations

from dataclasses import dataclass

from quantguard.core.finding import Finding
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Decision, GateOutcome, Subject
from quantguard.policy.schema import Policy
from quantguard.policy.subject import decide_subject


def decide_original(policy: Policy, findings: tuple[Finding, ...], measured: Measurements | None) -> Decision:
    """What the policy says about the bytes as they were registered."""
    return decide_subject(policy, Subject.ORIGINAL, findings, measured)


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of one set of bytes."""

    findings: tuple[Finding, ...]  # of its own scan
    measured: Measurements | None


def decide_both(policy: Policy, original: Judged, hardened: Judged | None) -> GateOutcome:
    """The outcome of a job; `hardened` is None where nothing was hardened."""
    repaired = None
    if hardened is not None:
        repaired = decide_subject(policy, Subject.HARDENED, hardened.findings, hardened.measured)
    return GateOutcome(decide_original(policy, original.findings, original.measured), repaired)
