"""What a report is made from. Every part but the model may be absent: a scan alone has no verdict."""

from __future__ import annotations

from dataclasses import dataclass

from quantguard.core.finding import Finding
from quantguard.core.hardening import HardeningSummary
from quantguard.core.layer import LayerScan
from quantguard.core.measurement import Measurements
from quantguard.core.remark import Place
from quantguard.core.verdict import GateOutcome, Subject, Verdict
from quantguard.core.waiver import Waiver


@dataclass(frozen=True, slots=True)
class PolicyUsed:
    name: str
    digest: str  # sha256:HEX of the policy file
    inputs_digest: str = ""  # sha256:HEX over the probes, calibration prompts and tasks that it names
    path: str = ""  # as the user gave it; empty where it is not known
    anchors: tuple[tuple[str, Place], ...] = ()  # (rule as a reason names it, where the policy file says it)


@dataclass(frozen=True, slots=True)
class WaiversUsed:
    """The file of waivers that was given; what became of each is told by the decisions."""

    path: str  # as the user gave it
    digest: str  # sha256:HEX of the file
    anchors: tuple[tuple[Waiver, Place], ...]  # every waiver of the file, whichever bytes it is for


@dataclass(frozen=True, slots=True)
class ReportFacts:
    model: str  # as the user named it
    model_digest: str = ""  # empty where it was not computed
    policy: PolicyUsed | None = None
    outcome: GateOutcome | None = None  # None: nothing was decided
    findings: tuple[Finding, ...] | None = None  # of the original; None: it was not scanned
    original: Measurements | None = None
    hardened: Measurements | None = None
    hardening: HardeningSummary | None = None  # None: nothing was hardened
    registry_events: tuple[str, ...] = ()  # what happened in the registry, one sentence each, in order
    registry_evidence: str = ""  # where the registry keeps the evidence; empty where it keeps none
    evidence: str = ""  # directory of the evidence files; empty where none was kept
    registered: bool = True  # False: a directory, which passes only as it is
    unfinished: str = ""  # what is still to be done before the outcome counts; empty where nothing is
    layers: tuple[LayerScan, ...] = ()  # what the scan measured, worst first; empty where it measured nothing
    waivers: WaiversUsed | None = None  # None: none were given

    @property
    def verdict(self) -> Verdict | None:
        """What a reader may act on; None where nothing was decided, HOLD for as long as the job is not over."""
        if self.outcome is None:
            return None
        return Verdict.HOLD if self.unfinished else self.outcome.verdict_for(registered=self.registered)

    @property
    def promoted(self) -> Subject | None:
        """What was promoted; None where nothing was, or not yet."""
        return self.outcome.promoted if self.outcome is not None and self.verdict is Verdict.PROMOTE else None
