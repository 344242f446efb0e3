"""Measure one model directory as it will be deployed: in full precision and under each scheme."""

from __future__ import annotations

import gc
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from quantguard.core.errors import ModelLoadError
from quantguard.core.measurement import (
    AttackSuccess,
    Benchmark,
    BenchmarkKind,
    Environment,
    Measurements,
    Scenario,
)
from quantguard.core.progress import Progress, silent
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.core.verdict import Subject
from quantguard.models.batching import paying_batch
from quantguard.models.device import device_label, library_versions
from quantguard.models.kept import KeptAnswers
from quantguard.models.load import LoadedModel
from quantguard.verify.benchmarks import BenchmarkRequest, compared, run_benchmark, unmeasured_benchmark
from quantguard.verify.beside import Beside
from quantguard.verify.code_tasks import run_code_task
from quantguard.verify.counterfactual_request import CounterfactualRequest
from quantguard.verify.differences import corrected
from quantguard.verify.judging import Outbox
from quantguard.verify.perplexity import PerplexityRequest, Reading
from quantguard.verify.scenarios import (
    Asking,
    ScenarioRequest,
    analyser_versions,
    attack_success,
    unmeasured_attack,
)
from quantguard.verify.traits import Answer
from quantguard.verify.triggers import TriggerRequest

__all__ = [
    "BenchmarkRequest",
    "CounterfactualRequest",
    "PerplexityRequest",
    "ScenarioRequest",
    "TriggerRequest",
    "measure",
]

_INSTRUMENTS: Final = ("bandit", "lm_eval", "py3langid", "scipy")


@dataclass(frozen=True, slots=True)
class _Setting:
    """What every run of one measurement shares."""

    device: str
    seed: int
    confidence: float
    scratch: Path
    progress: Progress
    model_digest: str
    outbox: Outbox | None
    answers: Path | None  # where they are kept; None: with what is in scratch
    readers: tuple[Reading | Beside, ...]  # each reads every model, full precision first
    heard: dict[Scenario, tuple[Answer, ...]] = field(default_factory=dict)  # full precision's, once it was asked

    @property
    def order(self) -> str:
        """What the order of probes is drawn from, where asking may stop."""
        return f"{self.model_digest}/{self.seed}"

    @property
    def kept(self) -> KeptAnswers:
        folder = self.answers or self.scratch / "answers"
        return KeptAnswers(folder, self.model_digest, device_label(self.device), library_versions())

    @property
    def batch_size(self) -> int:
        return paying_batch(self.device)


def measure(
    directory: Path,
    *,
    subject: Subject,
    model_digest: str,
    schemes: Sequence[Scheme],
    scenarios: Sequence[ScenarioRequest],
    benchmarks: Sequence[BenchmarkRequest],
    reference: Measurements | None,
    confidence: float,
    device: str,
    seed: int,
    scratch: Path,
    counterfactual: CounterfactualRequest | None = None,
    perplexity: PerplexityRequest | None = None,
    triggers: TriggerRequest | None = None,
    progress: Progress = silent,
    outbox: Outbox | None = None,
    answers: Path | None = None,
) -> Measurements:
    """Every scenario and benchmark in full precision and under each scheme, the model loaded once for each.

    `directory` is untrusted: transformers sees a clean copy of it, made and removed in `scratch`, a writable directory
    (on the same file system its weights are linked, not copied). `device` is what `resolve_device` returned.
    `reference` is the original's Measurements, whose full precision is the "before" of each benchmark drop, and whose
    texts perplexity is measured on; None: this model's own. `outbox` takes errands (`quantguard.core.errand`): `settle`
    fills what awaits them. Rows are ordered by scheme, full precision first; what fails is Unmeasured in all rows
    concerned. Answers are kept in `answers`, or `scratch`, and not asked for again.

    Raises UnsafeCheckpointError: `directory` holds what must never be loaded.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    reading = None if perplexity is None else Reading(perplexity, reference, paying_batch(device), progress)
    beside = Beside(counterfactual, triggers, paying_batch(device), confidence, seed, progress)
    readers = (beside,) if reading is None else (reading, beside)
    setting = _Setting(device, seed, confidence, scratch, progress, model_digest, outbox, answers, readers)
    runs = (None, *schemes)
    with tempfile.TemporaryDirectory(prefix="clean-", dir=scratch) as clean:
        problem = _rebuild(directory, Path(clean))
        attacks, results = _under_each(Path(clean), problem, runs, setting, (scenarios, benchmarks))
    progress("verify", len(runs), len(runs))
    done = corrected(attacks), compared(results, reference, confidence), _environment(scenarios, setting)
    drifts, hunts = beside.told(schemes, problem)
    _free(device)
    perplexities = () if reading is None else reading.compared(runs, problem, confidence=confidence, seed=seed)
    return Measurements(subject, model_digest, *done, drifts, perplexities, hunts)


def _under_each(
    directory: Path,
    problem: str | None,
    runs: Sequence[Scheme | None],
    setting: _Setting,
    asked: tuple[Sequence[ScenarioRequest], Sequence[BenchmarkRequest]],
) -> tuple[tuple[AttackSuccess, ...], list[Benchmark]]:
    """One model after the other in memory, full precision first: the others are compared with what it said."""
    attacks: list[AttackSuccess] = []
    results: list[Benchmark] = []
    for number, scheme in enumerate(runs):
        setting.progress("verify", number, len(runs), scheme_label(scheme))
        found, scored = (
            _run(directory, scheme, setting, *asked) if problem is None else _unmeasured(scheme, problem, *asked)
        )
        attacks += found
        results += scored
        _free(setting.device)
    return tuple(attacks), results


def _environment(scenarios: Sequence[ScenarioRequest], setting: _Setting) -> Environment:
    versions = tuple(sorted((*library_versions(_INSTRUMENTS), *analyser_versions(scenarios))))
    return Environment(device_label(setting.device), setting.seed, versions)


def _rebuild(directory: Path, clean: Path) -> str | None:
    """Why the directory cannot be measured, None where the clean copy is made."""
    from quantguard.models.safe_directory import rebuild

    try:
        rebuild(directory, clean)
    except ModelLoadError as error:
        return str(error)
    return None


def _run(
    directory: Path,
    scheme: Scheme | None,
    setting: _Setting,
    scenarios: Sequence[ScenarioRequest],
    benchmarks: Sequence[BenchmarkRequest],
) -> tuple[list[AttackSuccess], list[Benchmark]]:
    """One model in memory; it is let go on return."""
    from quantguard.models.load import load_model

    _seed(setting.seed)
    try:
        loaded = load_model(directory, scheme=scheme, device=setting.device, kept=setting.kept)
    except ModelLoadError as error:
        for reader in setting.readers:
            reader.failed(scheme, str(error))
        return _unmeasured(scheme, str(error), scenarios, benchmarks)
    asking = Asking(
        setting.batch_size,
        setting.confidence,
        setting.scratch,
        setting.progress,
        setting.order,
        setting.heard,
        setting.outbox,
    )
    attacks = [attack_success(loaded, scenario, asking) for scenario in scenarios]
    results = []
    for number, benchmark in enumerate(benchmarks):
        setting.progress("benchmark", number, len(benchmarks), benchmark.task)
        results.append(_benchmark(loaded, benchmark, setting))
    for reader in setting.readers:
        reader.read(loaded)
    return attacks, results


def _benchmark(loaded: LoadedModel, request: BenchmarkRequest, setting: _Setting) -> Benchmark:
    if request.kind is BenchmarkKind.CODE:
        return run_code_task(
            loaded, request, batch_size=setting.batch_size, outbox=setting.outbox, progress=setting.progress
        )
    return run_benchmark(
        loaded,
        request,
        batch_size=setting.batch_size,
        seed=setting.seed,
        confidence=setting.confidence,
        scratch=setting.scratch,
    )


def _unmeasured(
    scheme: Scheme | None, reason: str, scenarios: Sequence[ScenarioRequest], benchmarks: Sequence[BenchmarkRequest]
) -> tuple[list[AttackSuccess], list[Benchmark]]:
    attacks = [unmeasured_attack(request, scheme, reason) for request in scenarios]
    return attacks, [unmeasured_benchmark(request, scheme, reason) for request in benchmarks]


def _seed(seed: int) -> None:
    """Decoding is greedy; this covers what a library might draw all the same (few-shot examples, say)."""
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


def _free(device: str) -> None:
    gc.collect()  # modules and their hooks refer to each other
    if device != "cpu":
        import torch

        torch.cuda.empty_cache()
