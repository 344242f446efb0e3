"""The files that a policy names, read, digested and held against what the policy asks of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantguard.core.builtin_tasks import TASK_NAMES, TASKS_FOLDER, builtin_task
from quantguard.core.bundled import named_file
from quantguard.core.calibration import NEUTRAL, NEUTRAL_FOLDER, SELF, neutral_prompts
from quantguard.core.errors import PolicyError, ProblemsError, PromptsError
from quantguard.core.measurement import BenchmarkKind, Scenario
from quantguard.core.problems import BUILTIN_PROBLEMS, problems_digest, read_problems
from quantguard.core.prompts import Prompt, prompts_digest, read_prompts
from quantguard.core.suites import BUILTIN, SUITES_FOLDER, builtin_suite
from quantguard.core.triggers import read_triggers, triggers_digest
from quantguard.evidence.records import digest_file
from quantguard.policy.attainable import attainable_drop, attainable_judged, attainable_rate, attainable_sequential
from quantguard.policy.differential import rise_problems
from quantguard.policy.document import dotted
from quantguard.policy.extends import Written
from quantguard.policy.hunting import shared_confidence
from quantguard.policy.schema import (
    BenchmarkLimits,
    OverRefusalLimits,
    Policy,
    Sampling,
    Triggers,
    VulnerableCodeLimits,
)
from quantguard.policy.tasks import read_task


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that the policy names, directly or through a task, or the built-in prompts."""

    key: str  # where the policy names it, e.g. attack_success.over_refusal.probes
    path: Path  # a folder where it is built in
    digest: str  # of the prompts in order for a JSONL of prompts, of the bytes otherwise


def read_inputs(policy: Policy, written: Written) -> tuple[tuple[InputFile, ...], tuple[PolicyError, ...]]:
    """Every file that `policy` names, and what is wrong with them or cannot be met with them, as the file orders it."""
    inputs = _Inputs(written)
    _check_prompts(policy, inputs)
    _check_tasks(policy, inputs)
    return tuple(inputs.files), tuple(sorted(inputs.problems, key=written.order))


class _Inputs:
    """Collects what the policy names and what is wrong with it."""

    def __init__(self, written: Written) -> None:
        self.folder = written.path.parent
        self.written = written
        self.files: list[InputFile] = []
        self.problems: list[PolicyError] = []

    def wrong(self, location: tuple[str | int, ...], message: str, remedy: str = "") -> None:
        self.problems.append(self.written.error(location, message, remedy))

    def prompts(self, location: tuple[str | int, ...], relative: str) -> tuple[Prompt, ...]:
        path = named_file(relative, self.folder)
        try:
            prompts = read_prompts(path)
        except PromptsError as error:
            self.wrong(location, str(error))
            return ()
        self.files.append(InputFile(dotted(location), path, prompts_digest(prompts)))
        return prompts

    def probes(self, scenario: Scenario, source: str) -> tuple[Prompt, ...]:
        location = ("attack_success", scenario.value, "probes")
        if source != BUILTIN:
            return self.prompts(location, source)
        suite = builtin_suite(scenario)
        self.files.append(InputFile(dotted(location), SUITES_FOLDER, suite.digest))
        return suite.prompts

    def calibration(self, section: tuple[str, ...], source: str, samples: int, key: str = "samples") -> None:
        location = (*section, "prompts")
        if source == SELF:
            return  # the model gives as many as are asked for
        if source == NEUTRAL:
            prompts = neutral_prompts()
            self.files.append(InputFile(dotted(location), NEUTRAL_FOLDER, prompts_digest(prompts)))
        else:
            prompts = self.prompts(location, source)
        if 0 < len(prompts) < samples:
            place = "built in" if source == NEUTRAL else "in the file"
            self.wrong((*section, key), f"expected at most {len(prompts)}, the prompts {place}, got {samples}")

    def texts(self, section: tuple[str, ...], source: str, samples: int, key: str = "samples") -> None:
        """Prompts of calibration that do not come from the model."""
        if source == SELF:
            remedy = f"use {NEUTRAL}, or a file of prompts of the kind that the model will be asked"
            self.wrong((*section, "prompts"), "the model's own texts are not supported here", remedy)
            return
        self.calibration(section, source, samples, key)

    def triggers(self, asked: Triggers, confidence: float) -> None:
        """The prompts, the list, and whether the limit can be met at all."""
        self.texts(("triggers",), asked.prompts, asked.screen + asked.confirm, "confirm")
        if asked.list is not None:
            path = named_file(asked.list, self.folder)
            try:
                digest = triggers_digest(read_triggers(path))
            except PromptsError as error:
                self.wrong(("triggers", "list"), str(error))
            else:
                self.files.append(InputFile("triggers.list", path, digest))
        least = attainable_rate(asked.confirm, shared_confidence(confidence))
        if not least <= asked.max_upper_bound:
            message = f"cannot be met: 0 of {asked.confirm} answers only shows below {least:.4f}, "
            message += f"got {asked.max_upper_bound}"
            self.wrong(("triggers", "max_upper_bound"), message, "confirm with more prompts, or allow more")

    def problems_asked(self, location: tuple[str | int, ...], benchmark: BenchmarkLimits) -> int | None:
        """How many programs the model is to write; None where the problems cannot be read."""
        own = benchmark.path is not None
        path = named_file(benchmark.path, self.folder) if benchmark.path is not None else BUILTIN_PROBLEMS
        try:
            problems = read_problems(path)[: benchmark.limit]
        except ProblemsError as error:
            self.wrong((*location, "path"), str(error))
            return None
        self.files.append(InputFile(dotted((*location, "path" if own else "kind")), path, problems_digest(problems)))
        return len(problems)

    def questions(self, location: tuple[str | int, ...], benchmark: BenchmarkLimits) -> int | None:
        """How many there are, where that can be known; the files that they come from are kept as inputs."""
        limit = benchmark.limit
        if benchmark.path is not None:
            task, key = read_task(named_file(benchmark.path, self.folder), benchmark.task, limit), "path"
            self.files.extend(InputFile(dotted((*location, key)), file, digest_file(file)) for file in task.files)
            return task.questions if task.questions is not None else limit
        suites = builtin_task(benchmark.task)
        if not suites:
            return limit
        self.files.extend(InputFile(dotted((*location, "task")), TASKS_FOLDER, suite.digest) for suite in suites)
        return sum(min(suite.questions, limit or suite.questions) for suite in suites)


def _check_prompts(policy: Policy, inputs: _Inputs) -> None:
    if (calibration := policy.harden.calibration) is not None:
        inputs.calibration(("harden", "calibration"), calibration.prompts, calibration.samples)
    if (asked := policy.counterfactual) is not None:
        inputs.texts(("counterfactual",), asked.prompts, asked.samples)
    if (read := policy.perplexity) is not None:
        inputs.texts(("perplexity",), read.prompts, read.samples)
    if (hunted := policy.triggers) is not None:
        inputs.triggers(hunted, policy.confidence)
    sequential = policy.attack_success.sampling is Sampling.SEQUENTIAL
    asked_of: dict[Scenario, int] = {}
    for scenario, limits in policy.attack_success.by_scenario():
        section = ("attack_success", scenario.value)
        probes = asked_of[scenario] = len(inputs.probes(scenario, limits.probes))
        judge = limits.judge if isinstance(limits, OverRefusalLimits) else None
        attainable = attainable_sequential if sequential and judge is None else attainable_rate
        bounds: list[tuple[tuple[str, ...], float, Callable[[int, float], float]]] = [
            (("max_upper_bound",), limits.max_upper_bound, attainable)
        ]
        if isinstance(limits, VulnerableCodeLimits):
            bounds.append((("max_unparsable",), limits.max_unparsable, attainable))
        if judge is not None:
            bounds.append((("judge", "max_upper_bound"), judge.max_upper_bound, attainable_judged))
        for key, limit, at_best in bounds:
            least = at_best(probes, policy.confidence)
            if probes and not least <= limit:
                message = f"cannot be met: 0 of {probes} probes only shows below {least:.4f}, got {limit}"
                inputs.wrong((*section, *key), message, "use more probes or a higher limit")
    for place, message, remedy in rise_problems(policy, asked_of):
        inputs.wrong(place, message, remedy)


def _check_tasks(policy: Policy, inputs: _Inputs) -> None:
    for index, benchmark in enumerate(policy.benchmarks):
        location = ("benchmarks", index)
        coded = benchmark.kind is BenchmarkKind.CODE
        if "/" in benchmark.task and (coded or benchmark.task not in TASK_NAMES):
            known = "a name of your own" if coded else f"one of {', '.join(TASK_NAMES)}"
            inputs.wrong((*location, "task"), f"expected {known}, got {benchmark.task}")
            continue
        try:
            asked = inputs.problems_asked if coded else inputs.questions
            questions = asked(location, benchmark)
        except PolicyError as error:
            inputs.wrong((*location, "path"), str(error))
            continue
        if questions is not None:
            least = attainable_drop(questions, policy.confidence)
            if not least <= benchmark.max_drop:
                message = (
                    f"cannot be met: nothing lost of {questions} questions only shows below {least:.4f}, "
                    f"got {benchmark.max_drop}"
                )
                inputs.wrong((*location, "max_drop"), message, "use more questions or a higher limit")
