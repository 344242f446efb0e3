"""Measurements of an earlier job under another policy: what would the gate have said?

Nothing is measured and nothing is trusted: a replay is for whoever writes a policy, and promotes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from quantguard.core.errors import EvidenceError
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Decision, GateOutcome, Outcome, Reason, Subject
from quantguard.evidence.records import digest_of, read_record, to_plain
from quantguard.gate.outcome import Judged, decide_both
from quantguard.gate.work import Assessment, Scanned, Work
from quantguard.policy.evidence import asked, asked_otherwise
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.schema import HardenMode

T = TypeVar("T")

ASKED: Final = "asked"
_SHOWN: Final = 12  # keys in one sentence


@dataclass(frozen=True, slots=True)
class AskedRecord:
    """What decided what was measured, beside the bytes."""

    asked: tuple[tuple[str, str], ...]  # as `policy.evidence.asked`


@dataclass(frozen=True, slots=True)
class Replay:
    """One model, then and now."""

    where: Path
    then: GateOutcome
    now: GateOutcome
    note: str  # what the replay cannot tell; empty where it tells all

    def changed(self) -> tuple[Reason, ...]:
        """What keeps it back now and did not then, or says something else, in the order of the rules."""
        before = set(_failures(self.then))
        return tuple(reason for reason in _failures(self.now) if reason not in before)

    def gone(self) -> tuple[tuple[str, str], ...]:
        """(rule, where) of what kept it back then and does not now."""
        now = {(reason.rule, reason.where) for reason in _failures(self.now)}
        return tuple(dict.fromkeys((r.rule, r.where) for r in _failures(self.then) if (r.rule, r.where) not in now))


def write_asked(work: Work) -> None:
    """Leave beside the measurements what the policy asked for."""
    record = AskedRecord(asked(work.policy))
    work.step(ASKED, AskedRecord, digest_of(to_plain(AskedRecord, record)), lambda: record)


def replay(where: Path, policy: LoadedPolicy) -> Replay:
    """What `policy` says of what was measured in `where`, a work directory or the evidence of one.

    Raises:
        EvidenceError: nothing is measured there, or it was asked otherwise than the policy asks.
    """
    folder = where / "evidence" if (where / "evidence").is_dir() else where
    record = _required(folder, ASKED, AskedRecord)
    then = _required(folder, "outcome", Assessment).outcome
    if other := asked_otherwise(record.asked, policy):
        more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        raise EvidenceError(
            f"was asked otherwise than {policy.policy.name} asks: {', '.join(other[:_SHOWN])}{more}",
            path=where,
            remedy="gate the model under this policy",
        )
    original, hardened = _judged(folder, Subject.ORIGINAL), None
    if then.hardened is not None:
        hardened = _judged(folder, Subject.HARDENED)
    now = decide_both(policy.policy, original, hardened)
    return Replay(where, then, now, _note(policy, then, now))


def _judged(folder: Path, subject: Subject) -> Judged:
    scan = "scan" if subject is Subject.ORIGINAL else "scan-hardened"
    measured = read_record(folder / f"measurements-{subject.value}.json", f"measurements-{subject.value}", Measurements)
    return Judged(_required(folder, scan, Scanned).findings, measured)


def _required(folder: Path, name: str, kind: type[T]) -> T:
    found = read_record(folder / f"{name}.json", name, kind)
    if found is None:
        remedy = "name a work directory, or the evidence folder of one, of a job that was assessed"
        raise EvidenceError(f"there is no {name}.json", path=folder, remedy=remedy)
    return found


def _note(policy: LoadedPolicy, then: GateOutcome, now: GateOutcome) -> str:
    decisions = [decision for decision in (then.original, then.hardened) if decision is not None]
    waived = ["the waivers of that job are left out"] if any(decision.waived() for decision in decisions) else []
    return "; ".join([*waived, *_hardening_note(policy, now)])


def _hardening_note(policy: LoadedPolicy, now: GateOutcome) -> list[str]:
    if now.promoted is Subject.ORIGINAL:
        return []
    if now.hardened is not None:
        return ["hardened as the policy of that job said"]
    never = policy.policy.harden.mode is HardenMode.NEVER
    return [] if never else ["nothing was hardened then: gate it to see whether that helps"]


def _failures(outcome: GateOutcome) -> tuple[Reason, ...]:
    """What keeps back the bytes that came nearest to being promoted."""
    decision: Decision = outcome.original
    if outcome.hardened is not None and outcome.promoted is not Subject.ORIGINAL:
        decision = outcome.hardened
    return tuple(r for r in decision.reasons if r.outcome in (Outcome.VIOLATED, Outcome.UNMEASURED))
