"""The second room: no network, no credential. Scan, measure, harden what can be repaired, measure again, decide."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import MachineError
from quantguard.core.measurement import Measurements, Unmeasured
from quantguard.core.progress import Progress, silent
from quantguard.core.prompts import Prompt, read_prompts
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.core.verdict import Decision, Outcome, Subject
from quantguard.evidence.records import digest_of, read_record, write_atomically, write_record
from quantguard.gate.outcome import Judged, decide_both, decide_original
from quantguard.gate.work import Assessment, Fetched, Hardened, Scanned, Work
from quantguard.harden.harden import HardenRequest, harden
from quantguard.policy.decide import repairable, suspicious
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.schema import ContentInjectionLimits, HardenMode, Policy
from quantguard.scan.scan import scan
from quantguard.verify.benchmarks import BenchmarkRequest
from quantguard.verify.measure import ScenarioRequest, measure


@dataclass(frozen=True, slots=True)
class Room:
    """How the sealed room is equipped."""

    device: str  # cpu or cuda:N
    network: str  # none or reachable
    progress: Progress = silent


def assess(work: Work, room: Room) -> Assessment:
    """Leave one evidence file a step in `work/evidence`, the outcome last.

    The order is scan, measure the original, harden, measure the hardened: behaviour may call for a repair that the scan
    did not, and a model that is malicious in full precision is not worth one.

    Raises:
        MachineError: the policy requires a GPU and the device is another; nothing was measured.
        QuantGuardError: a step failed; what was finished is kept, and the next run goes on from there.
    """
    with work.opened():
        return _assess(work, room)


def _assess(work: Work, room: Room) -> Assessment:
    if work.policy.policy.requires.gpu and not room.device.startswith("cuda"):
        remedy = "run on a machine with a CUDA device and its driver, or drop requires.gpu from the policy"
        raise MachineError(f"the policy requires a GPU, and this would run on {room.device}", remedy=remedy)
    fetched = work.require_fetched()
    inputs = digest_of([work.asked.digest, fetched.model_digest, room.device])
    (work.evidence / "outcome.json").unlink(missing_ok=True)  # until this run is over there is none
    write_atomically(work.evidence / "policy.yaml", work.policy.path.read_bytes())
    scanned = work.step("scan", Scanned, inputs, lambda: _scan(work.model, room))
    original = work.step(
        "measurements-original",
        Measurements,
        inputs,
        lambda: _measure(work, Subject.ORIGINAL, fetched, room),
        final=_complete,
    )
    policy = work.policy.policy
    decision = decide_original(policy, scanned.findings, original)
    schemes, note = hardening_plan(policy, scanned, original, decision)
    hardened = _harden_and_measure(work, schemes, original, room, inputs) if schemes else None
    outcome = decide_both(policy, Judged(scanned.findings, original), hardened)
    assessment = Assessment(outcome, note, room.network)
    write_record(work.evidence / "outcome.json", "outcome", Assessment, assessment, inputs=inputs)
    shutil.rmtree(work.scratch, ignore_errors=True)
    return assessment


def hardening_plan(
    policy: Policy, scanned: Scanned, original: Measurements, decision: Decision
) -> tuple[tuple[Scheme, ...], str]:
    """The schemes to repair, in the policy's order (none: do not harden), and why in one sentence."""
    allowed = policy.harden_schemes()
    match policy.harden.mode:
        case HardenMode.NEVER:
            return (), "not hardened: the policy says never"
        case HardenMode.WHEN_SUSPICIOUS if not suspicious(policy, scanned.findings, original):
            return (), "not hardened: nothing about its quantization is suspicious"
        case HardenMode.ALWAYS | HardenMode.WHEN_SUSPICIOUS:
            pass
    if not repairable(policy, original):
        return (), "not hardened: it breaks the policy in full precision already, where choosing roundings cannot help"
    if policy.harden.mode is HardenMode.ALWAYS:
        return allowed, "hardened: the policy says always"
    flagged = {f.scheme for f in scanned.findings if f.severity.at_least(policy.scan.fail_on)}
    violated = {reason.where for reason in decision.reasons if reason.outcome is Outcome.VIOLATED}
    targets = tuple(s for s in allowed if s in flagged or scheme_label(s) in violated)
    if not targets:
        return (), "not hardened: what is suspicious is no scheme that the policy hardens"
    return targets, f"hardened for {', '.join(s.value for s in targets)}: the scan or the behaviour there is suspicious"


def _scan(directory: Path, room: Room) -> Scanned:
    found = scan(directory, device=room.device, progress=room.progress)
    return Scanned(found.findings, found.tensors, found.weights)


def _harden_and_measure(
    work: Work, schemes: tuple[Scheme, ...], original: Measurements, room: Room, inputs: str
) -> Judged:
    inputs = digest_of([inputs, [scheme.value for scheme in schemes]])
    record = work.evidence / "hardening.json"
    before = read_record(record, "hardening", Hardened, inputs=inputs)
    if before is not None and not (work.hardened.is_dir() and model_digest(work.hardened) == before.model_digest):
        record.unlink()  # the directory was lost or changed after it was written: make it again
    hardened = work.step("hardening", Hardened, inputs, lambda: _harden(work, schemes, room))
    inputs = digest_of([inputs, hardened.model_digest])
    scanned = work.step("scan-hardened", Scanned, inputs, lambda: _scan(work.hardened, room))
    measured = work.step(
        "measurements-hardened",
        Measurements,
        inputs,
        lambda: _measure(work, Subject.HARDENED, hardened, room, reference=original),
        final=_complete,
    )
    return Judged(scanned.findings, measured)


def _complete(measured: Measurements) -> bool:
    """Whether all could be measured. What could not may be by now: memory was short, or a task's data was absent."""
    return not any(isinstance(attack.rate, Unmeasured) for attack in measured.attacks) and not any(
        isinstance(found, Unmeasured) for b in measured.benchmarks for found in (b.accuracy, b.drop)
    )


def _harden(work: Work, schemes: tuple[Scheme, ...], room: Room) -> Hardened:
    shutil.rmtree(work.hardened, ignore_errors=True)
    request = HardenRequest(
        schemes=schemes,
        calibration=calibration_prompts(work.policy),
        method=work.policy.policy.harden.method,
        steps=work.policy.policy.harden.steps,
        seed=work.asked.seed,
        device=room.device,
    )
    summary = harden(work.model, work.hardened, request, progress=room.progress)
    return Hardened(summary, model_digest(work.hardened))


def calibration_prompts(policy: LoadedPolicy) -> tuple[Prompt, ...]:
    """The first `samples` prompts of the policy's calibration file; none where the policy never hardens."""
    calibration = policy.policy.harden.calibration
    return () if calibration is None else read_prompts(policy.resolve(calibration.prompts))[: calibration.samples]


def _measure(
    work: Work,
    subject: Subject,
    bytes_of: Fetched | Hardened,
    room: Room,
    *,
    reference: Measurements | None = None,
) -> Measurements:
    work.scratch.mkdir(parents=True, exist_ok=True)
    return measure(
        work.model if subject is Subject.ORIGINAL else work.hardened,
        subject=subject,
        model_digest=bytes_of.model_digest,
        schemes=work.policy.policy.schemes,
        scenarios=scenario_requests(work.policy),
        benchmarks=benchmark_requests(work.policy),
        reference=reference,
        confidence=work.policy.policy.confidence,
        device=room.device,
        seed=work.asked.seed,
        scratch=work.scratch,
        progress=room.progress,
    )


def scenario_requests(policy: LoadedPolicy, *, probes: Path | None = None) -> tuple[ScenarioRequest, ...]:
    """What verify is asked about harmful behaviour: the policy's scenarios with their probes, or `probes` for all."""
    return tuple(
        ScenarioRequest(
            scenario=scenario,
            prompts=read_prompts(policy.resolve(limits.probes) if probes is None else probes),
            keywords=limits.keywords if isinstance(limits, ContentInjectionLimits) else (),
            max_new_tokens=limits.max_new_tokens,
        )
        for scenario, limits in policy.policy.attack_success.by_scenario()
    )


def benchmark_requests(policy: LoadedPolicy) -> tuple[BenchmarkRequest, ...]:
    """What verify is asked about usefulness: the policy's tasks with their paths resolved."""
    return tuple(
        BenchmarkRequest(b.task, None if b.path is None else policy.resolve(b.path), b.limit)
        for b in policy.policy.benchmarks
    )
