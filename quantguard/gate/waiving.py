"""Waivers in a job: kept as evidence beside the policy, and applied wherever the job decides."""

from __future__ import annotations

from dataclasses import replace

from quantguard.core.errors import EvidenceError
from quantguard.core.verdict import Decision, GateOutcome
from quantguard.evidence.records import write_atomically
from quantguard.gate.work import Work
from quantguard.policy.waivers import apply_waivers


def keep_waivers(work: Work) -> None:
    """Leave the waivers, as they were read, in the evidence; none where none were given.

    Raises:
        EvidenceError: they cannot be written.
    """
    kept = work.evidence / "waivers.yaml"
    if work.allowed is None:
        kept.unlink(missing_ok=True)
    else:
        write_atomically(kept, work.allowed.file.data)


def require_kept(work: Work) -> None:
    """The waivers that are given now are those that the evidence holds.

    Raises:
        EvidenceError: they are others, or only one side has any.
    """
    kept = work.evidence / "waivers.yaml"
    there = kept.read_bytes() if kept.is_file() else None
    given = None if work.allowed is None else work.allowed.file.data
    if there != given:
        remedy = "run --stage assess again with the same --waivers: what was measured is kept"
        raise EvidenceError("these are not the waivers that the model was assessed with", path=kept, remedy=remedy)


def waived(decision: Decision, work: Work, digest: str) -> Decision:
    """`decision` about the bytes of `digest`, with the job's waivers applied."""
    if work.allowed is None:
        return decision
    given = work.allowed
    return apply_waivers(decision, given.file.waivers, work.policy.policy, model_digest=digest, today=given.today)


def waived_both(outcome: GateOutcome, work: Work, original: str, hardened: str | None) -> GateOutcome:
    """`outcome` about the bytes of both digests, with the job's waivers applied."""
    repaired = outcome.hardened
    if repaired is not None and hardened is not None:
        repaired = waived(repaired, work, hardened)
    return replace(outcome, original=waived(outcome.original, work, original), hardened=repaired)
