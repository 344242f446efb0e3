"""What a report of a job is made from, read back from its work directory."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from quantguard.core.measurement import Measurements
from quantguard.core.model import LocalDirectory, parse_model_ref
from quantguard.evidence.records import read_record
from quantguard.gate.publish import decided
from quantguard.gate.work import Hardened, PublishedRecord, Scanned, Work
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.waivers_file import LoadedWaivers
from quantguard.report.facts import PolicyUsed, ReportFacts, WaiversUsed

_UNFINISHED = "assessed, and not published yet: what follows counts when that is done"


def report_facts(work: Work) -> ReportFacts:
    """The facts of a job that was assessed, with the registry's events where it was published.

    Raises:
        EvidenceError: it has not been assessed.
    """
    fetched = work.require_fetched()
    outcome = decided(work, fetched)
    scanned = read_record(work.evidence / "scan.json", "scan", Scanned)
    hardened = read_record(work.evidence / "hardening.json", "hardening", Hardened)
    published = read_record(work.published, "published", PublishedRecord, inputs=work.asked.digest)
    repaired = outcome.hardened is not None
    return ReportFacts(
        model=work.asked.ref,
        model_digest=fetched.model_digest,
        policy=policy_used(work.policy),
        outcome=outcome,
        findings=None if scanned is None else scanned.findings,
        original=_measured(work, "measurements-original"),
        hardened=_measured(work, "measurements-hardened") if repaired else None,
        hardening=hardened.summary if hardened is not None and repaired else None,
        registry_events=() if published is None else published.events,
        registry_evidence="" if published is None else published.evidence,
        evidence=str(work.evidence),
        registered=not isinstance(parse_model_ref(work.asked.ref), LocalDirectory),
        unfinished="" if published is not None else _UNFINISHED,
        layers=() if scanned is None else scanned.layers,
        waivers=None if work.allowed is None else waivers_used(work.allowed.file),
    )


def waivers_used(loaded: LoadedWaivers) -> WaiversUsed:
    """A file of waivers as a report names it, with their places in a file of the working directory."""
    file = _in_working_directory(loaded.path)
    places = tuple((w, replace(place, file=file)) for w, place in zip(loaded.waivers, loaded.places, strict=True))
    return WaiversUsed(str(loaded.path), loaded.digest, places)


def policy_used(policy: LoadedPolicy) -> PolicyUsed:
    """The policy as a report names it, with the places of its rules in files of the working directory."""
    anchors = tuple(
        (rule, replace(place, file=_in_working_directory(Path(place.file)))) for rule, place in policy.anchors
    )
    return PolicyUsed(policy.policy.name, policy.digest, policy.inputs_digest, str(policy.path), anchors)


def _in_working_directory(path: Path) -> str:
    """`path` relative to the working directory, with slashes, where it lies below it; otherwise as it was given."""
    here = Path.cwd()
    # First by its name, not by what it links to: a repository holds the link. The working directory itself may be
    # named through a link, though.
    for absolute in (Path(os.path.normpath(here / path)), path.resolve()):
        if absolute.is_relative_to(here):
            return absolute.relative_to(here).as_posix()
    return path.as_posix()


def _measured(work: Work, name: str) -> Measurements | None:
    return read_record(work.evidence / f"{name}.json", name, Measurements)
