"""Measuring for `quantguard verify`: in this process, or in a sealed one of its own where errands have to be done."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantguard.cli.environment import hide_from_children, sealed_environment
from quantguard.cli.errands import JudgeGiven, spawn_errands
from quantguard.cli.progress import progress_shown
from quantguard.cli.spawn import spawn
from quantguard.core.measurement import BenchmarkKind
from quantguard.core.verdict import ExitCode, Subject

if TYPE_CHECKING:
    from quantguard.core.measurement import Measurements
    from quantguard.evidence.errands import Errands
    from quantguard.policy.load import LoadedPolicy
    from quantguard.verify.judging import Outbox

_RECORD = "measurements.json"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured, as the command line says it."""

    directory: Path
    policy: Path
    probes: Path | None
    device: str
    seed: int
    quiet: bool
    judge: JudgeGiven
    answers: Path | None  # where they are kept

    def loaded(self) -> LoadedPolicy:
        from quantguard.policy.load import load_policy

        return load_policy(self.policy)

    def needs_others(self) -> bool:
        """Whether something of it may have to be done where weights are not."""
        policy = self.loaded().policy
        return policy.judge() is not None or any(b.kind is BenchmarkKind.CODE for b in policy.benchmarks)


def measure_here(asked: Asked, into: Path | None) -> Measurements:
    """Measure in this process, which is sealed; with `into`, measurements and what they await are left there."""
    errands = None if into is None else _errands(into)
    measured = _measure(asked, None if errands is None else errands.ask)
    if into is not None:
        from quantguard.core.measurement import Measurements
        from quantguard.evidence.records import write_record

        write_record(into / _RECORD, "measurements", Measurements, measured, inputs="")
    return measured


def measure_apart(asked: Asked, artifact: Path | None, *, allow_cast: bool) -> tuple[ExitCode, Measurements | None]:
    """Measure in a sealed process, have its errands done in others, settle; this one opens no weights.

    The exit code is that of the first; the measurements are None where it left none.
    """
    from quantguard.core.errand import pending
    from quantguard.core.measurement import Measurements
    from quantguard.evidence.records import read_record
    from quantguard.verify.settle import settle

    hide_from_children()
    with tempfile.TemporaryDirectory(prefix="quantguard-") as name:
        into = Path(name)
        code = _spawn(asked, artifact, into, allow_cast=allow_cast)
        measured = read_record(into / _RECORD, "measurements", Measurements)
        if measured is None:
            return code, None
        errands, digests = _errands(into), pending(measured)
        if digests:
            kinds = errands.await_(digests).kinds
            spawn_errands(kinds, errands, asked.policy, asked.judge, quiet=asked.quiet)
        answers = {digest: errands.answered(digest) for digest in digests}
        confidence = asked.loaded().policy.confidence
        return code, settle(measured, answers, reference=None, confidence=confidence)


def _errands(into: Path) -> Errands:
    from quantguard.evidence.errands import Errands

    return Errands(into / "errands")


def _spawn(asked: Asked, artifact: Path | None, into: Path, *, allow_cast: bool) -> ExitCode:
    arguments = ["verify", str(asked.directory), "--into", str(into)]
    arguments += ["--policy", str(asked.policy), "--device", asked.device, "--seed", str(asked.seed)]
    arguments += ["--probes", str(asked.probes)] if asked.probes is not None else []
    arguments += ["--answers", str(asked.answers)] if asked.answers is not None else []
    arguments += ["--artifact", str(artifact)] if artifact is not None else []
    arguments += [flag for flag, given in (("--allow-cast", allow_cast), ("--quiet", asked.quiet)) if given]
    return spawn("measuring process", arguments, sealed_environment(into))


def _measure(asked: Asked, outbox: Outbox | None) -> Measurements:
    from quantguard.checkpoint.admit import admit
    from quantguard.checkpoint.digest import model_digest
    from quantguard.gate.assess import benchmark_requests, counterfactual_request, perplexity_request, scenario_requests
    from quantguard.gate.hunting import trigger_request
    from quantguard.models.device import resolve_device
    from quantguard.verify.measure import measure

    policy = asked.loaded()
    scenarios = scenario_requests(policy, probes=asked.probes)
    admit(asked.directory)
    with progress_shown(quiet=asked.quiet) as progress, tempfile.TemporaryDirectory(prefix="quantguard-") as scratch:
        return measure(
            asked.directory,
            subject=Subject.ORIGINAL,
            model_digest=model_digest(asked.directory),
            schemes=policy.policy.schemes,
            scenarios=scenarios,
            benchmarks=benchmark_requests(policy),
            reference=None,
            confidence=policy.policy.confidence,
            device=resolve_device(asked.device),
            seed=asked.seed,
            scratch=Path(scratch),
            counterfactual=counterfactual_request(policy),
            perplexity=perplexity_request(policy),
            triggers=trigger_request(policy),
            progress=progress,
            outbox=outbox,
            answers=asked.answers,
        )
