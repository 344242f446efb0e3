"""How often a model does what it must not: probes in, attack success out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

from quantguard.core.errors import ModelLoadError
from quantguard.core.measurement import Analyser, AttackSuccess, CodeTool, Rate, Scenario, Unmeasured
from quantguard.core.progress import Progress
from quantguard.core.prompts import Prompt, prompts_digest
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.models.load import LoadedModel
from quantguard.verify.detectors.codeql import codeql_version, find_codeql
from quantguard.verify.detectors.content_injection import content_injection
from quantguard.verify.detectors.interface import Detector, DetectorError
from quantguard.verify.detectors.over_refusal import over_refusal
from quantguard.verify.detectors.vulnerable_code import vulnerable_code
from quantguard.verify.differences import differences
from quantguard.verify.examples import EXAMPLES, example
from quantguard.verify.judging import JudgeRequest, Outbox, ask_judge
from quantguard.verify.sequential import sequential_rate, settled
from quantguard.verify.statistics import rate
from quantguard.verify.traits import Answer
from quantguard.verify.weaknesses import weaknesses

_LOOK: Final = 32  # answers between two looks at whether it is settled, on every device: the same probes are asked


@dataclass(frozen=True, slots=True)
class Stopping:
    """The limits of the policy: asking ends where it is settled on which side of each the rate lies."""

    max_harmful: float  # 0..1
    max_unparsable: float | None  # 0..1; vulnerable_code only


@dataclass(frozen=True, slots=True)
class ScenarioRequest:
    """One harm to look for."""

    scenario: Scenario
    prompts: tuple[Prompt, ...]  # the probes; their answers, where given, are not used
    keywords: tuple[str, ...]  # content_injection only
    max_new_tokens: int
    suite: str = ""  # builtin/SCENARIO/VERSION; empty of a user's file
    stopping: Stopping | None = None  # None: every probe is asked
    analyser: Analyser | None = None  # vulnerable_code only; None: bandit
    judge: JudgeRequest | None = None  # who is asked about the answers, too; over_refusal only


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked."""

    batch_size: int
    confidence: float  # of every interval, 0..1
    scratch: Path  # writable
    progress: Progress
    order: str = ""  # what the order is drawn from where asking may stop: other bytes, another order
    heard: dict[Scenario, tuple[Answer, ...]] = field(default_factory=dict)  # full precision's, once it was asked
    outbox: Outbox | None = None  # where errands are left; None: nobody does any


def attack_success(loaded: LoadedModel, request: ScenarioRequest, asking: Asking) -> AttackSuccess:
    """Answer the probes and judge the answers.

    The rate is harmful answers over *all* answers. For vulnerable code `unparsable` is the share, again of all answers,
    that holds no code that parses: such an answer is not counted as safe, it is reported beside the rate, and a model
    whose rate is low because its answers are broken shows there. A failure is Unmeasured, never an exception.

    With `request.stopping` the probes are asked in an order drawn from `asking.order`, until for each limit it is
    settled on which side of it the rate lies, or until the last. The intervals then are always valid (`sequential.py`).

    Full precision is to be asked first: a quantized model's answers are compared with its, as far as both were asked.
    """
    try:
        answers = _asked(loaded, request, asking)
        found, unparsable = _rates(request, answers, asking.confidence)
    except (ModelLoadError, DetectorError, ValueError) as error:
        return unmeasured_attack(request, loaded.scheme, str(error))
    heard = asking.heard.get(request.scenario, ()) if loaded.scheme is not None else ()
    told = differences(request.scenario, answers, heard, asking.confidence, sequential=request.stopping is not None)
    if loaded.scheme is None:
        asking.heard[request.scenario] = tuple(answers)
    harmful = [example(answer.text) for answer in answers if answer.judgement.harmful]
    return AttackSuccess(
        scenario=request.scenario,
        scheme=loaded.scheme,
        rate=found,
        unparsable=unparsable,
        probe_set=prompts_digest(request.prompts),
        examples=tuple(harmful[:EXAMPLES]),
        suite=request.suite,
        overused=told.overused,
        changes=told.changes,
        discovered=told.discovered,
        analyser=request.analyser,
        weaknesses=weaknesses(
            [answer.judgement for answer in answers],
            [answer.judgement for answer in heard] or None,
            _share(request, answers, asking.confidence),
        ),
        judged=_judged(loaded, request, answers, asking),
    )


def _judged(
    loaded: LoadedModel, request: ScenarioRequest, answers: Sequence[Answer], asking: Asking
) -> Unmeasured | None:
    texts = [answer.text for answer in answers]
    return ask_judge(request.judge, texts, f"{request.scenario.value} {scheme_label(loaded.scheme)}", asking.outbox)


def _asked(loaded: LoadedModel, request: ScenarioRequest, asking: Asking) -> list[Answer]:
    """Every answer that was needed, in the order in which they were given."""
    prompts = [prompt.prompt for prompt in request.prompts]
    if request.stopping is None:
        return _answers(loaded, request, asking, prompts)
    # A file may be sorted by topic: the interval needs probes that come as if drawn from a hat.
    prompts = [prompts[row] for row in sorted(range(len(prompts)), key=lambda row: _lot(asking.order, row))]
    answers: list[Answer] = []
    while len(answers) < len(prompts):
        answers += _answers(loaded, request, asking, prompts[len(answers) : len(answers) + _LOOK])
        harmful, unparsable = _rates(request, answers, asking.confidence)
        if settled(harmful, request.stopping.max_harmful) and (
            unparsable is None
            or request.stopping.max_unparsable is None
            or settled(unparsable, request.stopping.max_unparsable)
        ):
            break
        asking.progress("probes", len(answers), len(prompts))
    stopped = f"stopped after {len(answers)} of {len(prompts)}" if len(answers) < len(prompts) else ""
    asking.progress("probes", len(answers), len(answers), stopped)
    return answers


def _lot(order: str, row: int) -> bytes:
    return hashlib.sha256(f"{order}/{row}".encode()).digest()


def _answers(loaded: LoadedModel, request: ScenarioRequest, asking: Asking, prompts: Sequence[str]) -> list[Answer]:
    from quantguard.models.generate import generate

    detector = _detector(request, prompts, asking.scratch)
    texts = generate(
        loaded,
        prompts,
        max_new_tokens=request.max_new_tokens,
        batch_size=asking.batch_size,
        progress=asking.progress,
    )
    return [Answer(*row) for row in zip(prompts, texts, detector(texts), strict=True)]


def _rates(request: ScenarioRequest, answers: Sequence[Answer], confidence: float) -> tuple[Rate, Rate | None]:
    """The share of harmful answers and, of vulnerable code, that of unparsable ones."""
    share = _share(request, answers, confidence)
    harmful = share(sum(answer.judgement.harmful for answer in answers))
    if request.scenario is not Scenario.VULNERABLE_CODE:
        return harmful, None
    return harmful, share(sum(answer.judgement.unparsable for answer in answers))


def _share(request: ScenarioRequest, answers: Sequence[Answer], confidence: float) -> Callable[[int], Rate]:
    """The rate of so many of all answers."""
    if request.stopping is None:
        return lambda count: rate(count, len(answers), confidence)
    return lambda count: sequential_rate(count, len(answers), confidence, offered=len(request.prompts))


def analyser_versions(requests: Sequence[ScenarioRequest]) -> tuple[tuple[str, str], ...]:
    """(codeql, version) where it judges; nothing where it does not or is not there, which its scenario says."""
    if not any(request.analyser and CodeTool.CODEQL in request.analyser.tools for request in requests):
        return ()
    try:
        return ((CodeTool.CODEQL.value, codeql_version(find_codeql())),)
    except DetectorError:
        return ()


def unmeasured_attack(request: ScenarioRequest, scheme: Scheme | None, reason: str) -> AttackSuccess:
    digest = prompts_digest(request.prompts)
    judged = Unmeasured(reason) if request.judge is not None else None
    return AttackSuccess(
        request.scenario,
        scheme,
        Unmeasured(reason),
        None,
        digest,
        suite=request.suite,
        analyser=request.analyser,
        judged=judged,
    )


def _detector(request: ScenarioRequest, prompts: Sequence[str], scratch: Path) -> Detector:
    match request.scenario:
        case Scenario.CONTENT_INJECTION:
            return content_injection(request.keywords)
        case Scenario.OVER_REFUSAL:
            return over_refusal()
        case Scenario.VULNERABLE_CODE:
            return vulnerable_code(scratch, prompts, analyser=request.analyser or Analyser.BANDIT)
        case _:
            assert_never(request.scenario)
