"""Benchmarks of kind code: the model writes programs here, and they are run elsewhere, as an errand.

Nothing that a model wrote is run in this process, nor in this room: the programs go with their tests to a container
that holds neither weights nor credentials (`quantguard.execute`), and its verdicts settle the benchmark. Each program
is generated once and greedily, so the accuracy is pass@1 (Chen et al., arXiv 2107.03374).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from quantguard.core.errand import Answers, Errand, ErrandKind
from quantguard.core.errors import ModelLoadError, ProblemsError
from quantguard.core.measurement import Benchmark, Measurements, Unmeasured
from quantguard.core.problems import BUILTIN_PROBLEMS, CodeProblem, problems_digest, read_problems
from quantguard.core.progress import Progress
from quantguard.core.scheme import scheme_label
from quantguard.models.load import LoadedModel
from quantguard.verify.benchmarks import BenchmarkRequest, compared, unmeasured_benchmark
from quantguard.verify.judging import Outbox
from quantguard.verify.programs import program
from quantguard.verify.statistics import rate

SETTINGS: Final = (("mebibytes", "512"), ("seconds", "10"))  # that each program gets
NEW_TOKENS: Final = 512  # of a program, where the policy does not say
_PASSED: Final = "passed"
_BROKEN: Final = "broken"


def run_code_task(
    loaded: LoadedModel, request: BenchmarkRequest, *, batch_size: int, outbox: Outbox | None, progress: Progress
) -> Benchmark:
    """Have the model write each program, and leave the errand that runs them. A failure is Unmeasured."""
    from quantguard.models.generate import generate

    try:
        problems = read_problems(request.path or BUILTIN_PROBLEMS)[: request.limit]
        answers = generate(
            loaded,
            [problem.prompt for problem in problems],
            max_new_tokens=request.max_new_tokens or NEW_TOKENS,
            batch_size=batch_size,
            progress=progress,
        )
    except (ModelLoadError, ProblemsError) as error:
        return unmeasured_benchmark(request, loaded.scheme, str(error))
    if outbox is None:
        why = "generated programs are run by another room, and nobody is there to ask it: use quantguard gate or verify"
        return unmeasured_benchmark(request, loaded.scheme, why)
    digest = outbox(execute_errand(problems, answers, f"{request.task} {scheme_label(loaded.scheme)}"))
    awaits = Unmeasured("awaits the execution of its programs (run --stage execute, then --stage assess)", digest)
    return Benchmark(request.task, loaded.scheme, awaits, awaits, problems_digest(problems))


def execute_errand(problems: Sequence[CodeProblem], answers: Sequence[str], about: str) -> Errand:
    """What is run: of each answer its program, with the function that is called, the setup and the tests."""
    rows = [
        (program(problem, answer), problem.entry, problem.setup, problem.tests)
        for problem, answer in zip(problems, answers, strict=True)
    ]
    return Errand(ErrandKind.EXECUTE, about, SETTINGS, tuple(tuple(map(_plain, row)) for row in rows))


def _plain(text: str) -> str:
    """In characters that any file can hold (no lone surrogates)."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def settle_executed(
    measured: Measurements, answers: Answers, *, reference: Measurements | None, confidence: float
) -> Measurements:
    """`measured` with each benchmark whose programs were run, and what it lost against `reference`, as `compared`."""
    run = tuple(_executed(benchmark, answers, confidence) for benchmark in measured.benchmarks)
    changed = {
        after.task for before, after in zip(measured.benchmarks, run, strict=True) if before.accuracy != after.accuracy
    }
    drops = compared(run, reference, confidence)
    settled = (new if new.task in changed else old for old, new in zip(run, drops, strict=True))
    return replace(measured, benchmarks=tuple(settled))


def _executed(benchmark: Benchmark, answers: Answers, confidence: float) -> Benchmark:
    awaits = benchmark.accuracy
    answer = answers.get(awaits.errand) if isinstance(awaits, Unmeasured) and awaits.errand else None
    if answer is None:
        return benchmark
    if isinstance(answer, Unmeasured):
        return replace(benchmark, accuracy=answer, drop=answer)
    if answer.errand.kind is not ErrandKind.EXECUTE or answer.errand.settings != SETTINGS:
        other = Unmeasured("the programs were run by other rules (run again: it is measured anew)")
        return replace(benchmark, accuracy=other, drop=other)
    broken = next((row for row, reply in enumerate(answer.replies) if reply.word == _BROKEN), None)
    if broken is not None:
        said = answer.replies[broken].note
        why = Unmeasured(f"the tests of {answer.errand.items[broken][1]}, problem {broken + 1}, cannot be run: {said}")
        return replace(benchmark, accuracy=why, drop=why)
    outcomes = "".join("1" if reply.word == _PASSED else "0" for reply in answer.replies)
    return replace(benchmark, accuracy=rate(outcomes.count("1"), len(outcomes), confidence), outcomes=outcomes)
