"""The second room: no network, no credential. Scan, measure, harden what can be repaired, measure again, decide."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quantguard.checkpoint.digest import model_digest
from quantguard.core.calibration import CalibrationSet, Sampled, read_calibration
from quantguard.core.errors import MachineError, PolicyError
from quantguard.core.measurement import Measurements, Unmeasured
from quantguard.core.progress import Progress, silent
from quantguard.core.prompts import Prompt, read_prompts
from quantguard.core.scheme import Scheme
from quantguard.core.suites import ProbeSet, read_probes
from quantguard.core.verdict import Subject
from quantguard.evidence.records import digest_of, read_record, write_atomically, write_record
from quantguard.gate.errands import open_errands, settled
from quantguard.gate.hunting import trigger_request
from quantguard.gate.outcome import Judged, decide_both, decide_original
from quantguard.gate.plan import hardening_plan
from quantguard.gate.replay import write_asked
from quantguard.gate.times import keep_time
from quantguard.gate.waiving import keep_waivers, waived, waived_both
from quantguard.gate.work import Assessment, Fetched, Hardened, Scanned, Work
from quantguard.harden.harden import HardenRequest, harden
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.schema import (
    ContentInjectionLimits,
    OverRefusalLimits,
    Sampling,
    ScenarioLimits,
    VulnerableCodeLimits,
)
from quantguard.scan.scan import scan
from quantguard.verify.benchmarks import BenchmarkRequest
from quantguard.verify.judging import JudgeRequest
from quantguard.verify.measure import CounterfactualRequest, PerplexityRequest, ScenarioRequest, measure
from quantguard.verify.scenarios import Stopping


@dataclass(frozen=True, slots=True)
class Room:
    """How the sealed room is equipped."""

    device: str  # cpu or cuda:N
    network: str  # none or reachable
    progress: Progress = silent
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


def assess(work: Work, room: Room) -> Assessment:
    """Leave one evidence file a step in `work/evidence`, the outcome last.

    The order is scan, measure the original, harden, measure the hardened: behaviour may call for a repair that the scan
    did not, and a model that is malicious in full precision is not worth one.

    Raises:
        MachineError: the policy requires a GPU and the device is another; nothing was measured.
        AwaitsErrands: other rooms have something to do first; run again after them, it goes on (`gate/errands.py`).
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
    write_atomically(work.evidence / "policy.yaml", work.policy.text)
    write_asked(work)
    keep_waivers(work)
    scanned = work.step("scan", Scanned, inputs, lambda: _scan(work, work.model, fetched, room))
    original = work.step(
        "measurements-original",
        Measurements,
        inputs,
        lambda: _measure(work, Subject.ORIGINAL, fetched, room),
        final=lambda measured: _final(work, measured),
    )
    original = settled(work, "measurements-original", original, inputs)
    keep_time(work, original, room.clock())
    policy = work.policy.policy
    decision = waived(decide_original(policy, scanned.findings, original), work, fetched.model_digest)
    schemes, note = hardening_plan(policy, scanned.findings, original, decision)
    hardened = _harden_and_measure(work, schemes, original, room, inputs) if schemes else None
    repaired = hardened.measured.model_digest if hardened is not None and hardened.measured is not None else None
    outcome = decide_both(policy, Judged(scanned.findings, original), hardened)
    outcome = waived_both(outcome, work, fetched.model_digest, repaired)
    assessment = Assessment(outcome, note, room.network)
    write_record(work.evidence / "outcome.json", "outcome", Assessment, assessment, inputs=inputs)
    work.errands.forget_awaited()
    shutil.rmtree(work.scratch, ignore_errors=True)
    return assessment


def _scan(work: Work, directory: Path, bytes_of: Fetched | Hardened, room: Room) -> Scanned:
    """What is sampled depends on the bytes: whoever prepares the rest of them has other bytes, and another sample."""
    seed = int(digest_of([bytes_of.model_digest, work.asked.seed]).removeprefix("sha256:")[:15], 16)
    found = scan(directory, device=room.device, progress=room.progress, seed=seed)
    return Scanned(found.findings, found.tensors, found.weights, found.layers)


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
    scanned = work.step("scan-hardened", Scanned, inputs, lambda: _scan(work, work.hardened, hardened, room))
    measured = work.step(
        "measurements-hardened",
        Measurements,
        inputs,
        lambda: _measure(work, Subject.HARDENED, hardened, room, reference=original),
        final=lambda measured: _final(work, measured),
    )
    measured = settled(work, "measurements-hardened", measured, inputs, reference=original)
    keep_time(work, measured, room.clock())
    return Judged(scanned.findings, measured)


def _final(work: Work, measured: Measurements) -> bool:
    """Whether there is nothing to measure again: a run that goes on after errands has just measured."""
    return work.errands.awaited() is not None or _complete(measured, work)


def _complete(measured: Measurements, work: Work) -> bool:
    """Whether all could be measured. What could not may be by now: memory was short, or a task's data was absent."""
    found = (
        *(figure for attack in measured.attacks for figure in (attack.rate, attack.judged)),
        *(figure for benchmark in measured.benchmarks for figure in (benchmark.accuracy, benchmark.drop)),
        *(drift.divergence for drift in measured.drifts),
        *(row.rise for row in measured.perplexities),
        *(hunt.found for hunt in measured.hunts),
    )
    return all(not isinstance(figure, Unmeasured) or open_errands(work.errands, figure) for figure in found)


def _harden(work: Work, schemes: tuple[Scheme, ...], room: Room) -> Hardened:
    shutil.rmtree(work.hardened, ignore_errors=True)
    request = HardenRequest(
        schemes=schemes,
        calibration=_calibration(work),
        method=work.policy.policy.harden.method,
        steps=work.policy.policy.harden.steps,
        seed=work.asked.seed,
        device=room.device,
    )
    summary = harden(work.model, work.hardened, request, progress=room.progress)
    return Hardened(summary, model_digest(work.hardened))


def _calibration(work: Work) -> CalibrationSet | Sampled | tuple[Prompt, ...]:
    """As many prompts as the policy says, of the source that it names; none where the policy never hardens."""
    named = work.policy.policy.harden.calibration
    return () if named is None else read_calibration(named.prompts, named.samples, folder=work.policy.path.parent)


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
        counterfactual=counterfactual_request(work.policy),
        perplexity=perplexity_request(work.policy),
        triggers=trigger_request(work.policy),
        progress=room.progress,
        outbox=work.errands.ask,
    )


def counterfactual_request(policy: LoadedPolicy) -> CounterfactualRequest | None:
    """What verify is asked about counterfactual rounding; None where the policy does not limit it."""
    asked = policy.policy.counterfactual
    if asked is None:
        return None
    return CounterfactualRequest(_texts(policy, asked.prompts, asked.samples, "counterfactual"), asked.max_ratio)


def perplexity_request(policy: LoadedPolicy) -> PerplexityRequest | None:
    """What verify is asked about perplexity; None where the policy does not limit it."""
    asked = policy.policy.perplexity
    if asked is None:
        return None
    return PerplexityRequest(_texts(policy, asked.prompts, asked.samples, "perplexity"))


def _texts(policy: LoadedPolicy, source: str, samples: int, section: str) -> tuple[Prompt, ...]:
    chosen = read_calibration(source, samples, folder=policy.path.parent)
    if isinstance(chosen, Sampled):
        raise PolicyError("the model's own texts are not supported here", path=policy.path, key=f"{section}.prompts")
    return chosen.prompts


def scenario_requests(policy: LoadedPolicy, *, probes: Path | None = None) -> tuple[ScenarioRequest, ...]:
    """What verify is asked about harmful behaviour: the policy's scenarios with their probes, or `probes` for all."""
    requests = []
    for scenario, limits in policy.policy.attack_success.by_scenario():
        folder = policy.path.parent
        asked = (
            read_probes(limits.probes, scenario, folder=folder)
            if probes is None
            else ProbeSet("", read_prompts(probes))
        )
        keywords = limits.keywords if isinstance(limits, ContentInjectionLimits) else ()
        judge = limits.judge if isinstance(limits, OverRefusalLimits) else None
        request = ScenarioRequest(
            scenario,
            asked.prompts,
            keywords,
            limits.max_new_tokens,
            suite=asked.suite,
            analyser=limits.analyser if isinstance(limits, VulnerableCodeLimits) else None,
            # A judge speaks when all is asked: what it will say cannot settle anything before.
            stopping=_stopping(policy.policy.attack_success.sampling, limits) if judge is None else None,
            judge=None if judge is None else JudgeRequest(judge.model),
        )
        requests.append(request)
    return tuple(requests)


def _stopping(sampling: Sampling, limits: ScenarioLimits) -> Stopping | None:
    if sampling is Sampling.FIXED:
        return None
    return Stopping(limits.max_upper_bound, limits.max_unparsable if isinstance(limits, VulnerableCodeLimits) else None)


def benchmark_requests(policy: LoadedPolicy) -> tuple[BenchmarkRequest, ...]:
    """What verify is asked about usefulness: the policy's tasks with their paths resolved."""
    return tuple(
        BenchmarkRequest(b.task, None if b.path is None else policy.resolve(b.path), b.limit, b.kind, b.max_new_tokens)
        for b in policy.policy.benchmarks
    )
