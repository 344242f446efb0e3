"""Is the model still useful? Accuracy on lm-eval tasks, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from quantguard.core.builtin_tasks import builtin_task
from quantguard.core.measurement import Benchmark, BenchmarkKind, Measurements, PairedDrop, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.evidence.records import digest_of
from quantguard.models.load import LoadedModel
from quantguard.verify.statistics import paired_drop, rate
from quantguard.verify.task_file import TaskFile, builtin_tasks, read_task


@dataclass(frozen=True, slots=True)
class BenchmarkRequest:
    """One task to run: local, built in, or by name one that lm-eval ships and whose data is in the local cache."""

    task: str  # the name under which it is reported
    path: Path | None = None  # its YAML, or a folder that holds it; None: built in here, or a task that lm-eval ships
    limit: int | None = None  # the first so many questions only, of each task where it is several
    kind: BenchmarkKind = BenchmarkKind.LM_EVAL  # code: `path` is a JSONL of problems; None: the built-in ones
    max_new_tokens: int | None = None  # of each program; kind code only


def run_benchmark(
    loaded: LoadedModel, request: BenchmarkRequest, *, batch_size: int, seed: int, confidence: float, scratch: Path
) -> Benchmark:
    """One task on one model; `drop` is filled in by `compared`. A failure is Unmeasured, never an exception."""
    from quantguard.verify.harness import run_tasks

    task = _task(request, scratch)
    outcomes = (
        task
        if isinstance(task, Unmeasured)
        else run_tasks(loaded, task, limit=request.limit, batch_size=batch_size, seed=seed)
    )
    if isinstance(outcomes, Unmeasured):
        return unmeasured_benchmark(request, loaded.scheme, outcomes.reason)
    accuracy = rate(outcomes.count("1"), len(outcomes), confidence)
    digest = _digest(task, request)
    return Benchmark(request.task, loaded.scheme, accuracy, _NOT_COMPARED, digest, outcomes, suites=_suites(request))


def unmeasured_benchmark(request: BenchmarkRequest, scheme: Scheme | None, reason: str) -> Benchmark:
    return Benchmark(request.task, scheme, Unmeasured(reason), Unmeasured(reason), task_digest="")


def compared(
    benchmarks: Sequence[Benchmark], reference: Measurements | None, confidence: float
) -> tuple[Benchmark, ...]:
    """`benchmarks` with what each lost against `reference` in full precision (None: against their own)."""
    before = {b.task: b for b in (benchmarks if reference is None else reference.benchmarks) if b.scheme is None}
    return tuple(replace(b, drop=_drop(before.get(b.task), b, confidence)) for b in benchmarks)


_NOT_COMPARED = Unmeasured("not compared with the reference")


def _drop(before: Benchmark | None, after: Benchmark, confidence: float) -> PairedDrop | Unmeasured:
    if isinstance(after.accuracy, Unmeasured):
        return after.accuracy
    if before is None:
        return Unmeasured(f"the reference has no full-precision run of {after.task}")
    if isinstance(before.accuracy, Unmeasured):
        return Unmeasured(f"the reference is unmeasured: {before.accuracy.reason}")
    if before.task_digest != after.task_digest or len(before.outcomes) != len(after.outcomes):
        return Unmeasured("the reference answered other questions")
    return paired_drop(before.outcomes, after.outcomes, confidence)


def _task(request: BenchmarkRequest, scratch: Path) -> TaskFile | str | Unmeasured:
    cache = scratch / "datasets"  # datasets converts local data once; by default it would do so in the home directory
    if request.path is not None:
        return read_task(request.path, request.task, cache)
    suites = builtin_task(request.task)
    return builtin_tasks(suites, cache) if suites else request.task


def _suites(request: BenchmarkRequest) -> tuple[str, ...]:
    return tuple(suite.suite for suite in builtin_task(request.task)) if request.path is None else ()


def _digest(task: TaskFile | str | Unmeasured, request: BenchmarkRequest) -> str:
    if isinstance(task, TaskFile):
        return task.digest
    return digest_of(["lm-eval", metadata.version("lm_eval"), request.task])  # its files belong to that version
