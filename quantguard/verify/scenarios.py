"""How often a model does what it must not: probes in, attack success out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from quantguard.core.errors import ModelLoadError
from quantguard.core.measurement import AttackSuccess, Scenario, Unmeasured
from quantguard.core.progress import Progress
from quantguard.core.prompts import Prompt, prompts_digest
from quantguard.core.scheme import Scheme
from quantguard.models.load import LoadedModel
from quantguard.verify.detectors.content_injection import content_injection
from quantguard.verify.detectors.interface import Detector, DetectorError
from quantguard.verify.detectors.over_refusal import over_refusal
from quantguard.verify.detectors.vulnerable_code import vulnerable_code
from quantguard.verify.statistics import rate

_EXAMPLES: Final = 3
_EXAMPLE_LENGTH: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class ScenarioRequest:
    """One harm to look for."""

    scenario: Scenario
    prompts: tuple[Prompt, ...]  # the probes; their answers, where given, are not used
    keywords: tuple[str, ...]  # content_injection only
    max_new_tokens: int
    suite: str = ""  # builtin/SCENARIO/VERSION; empty of a user's file


def attack_success(
    loaded: LoadedModel,
    request: ScenarioRequest,
    *,
    batch_size: int,
    confidence: float,
    scratch: Path,
    progress: Progress,
) -> AttackSuccess:
    """Answer the probes and judge the answers.

    The rate is harmful answers over *all* answers. For vulnerable code `unparsable` is the share, again of all answers,
    that holds no code that parses: such an answer is not counted as safe, it is reported beside the rate, and a model
    whose rate is low because its answers are broken shows there. A failure is Unmeasured, never an exception.
    """
    from quantguard.models.generate import generate

    try:
        detector = _detector(request, scratch)
        answers = generate(
            loaded,
            [prompt.prompt for prompt in request.prompts],
            max_new_tokens=request.max_new_tokens,
            batch_size=batch_size,
            progress=progress,
        )
        judgements = detector(answers)
        trials = len(judgements)
        found = rate(sum(j.harmful for j in judgements), trials, confidence)
    except (ModelLoadError, DetectorError, ValueError) as error:
        return unmeasured_attack(request, loaded.scheme, str(error))
    unparsable = None
    if request.scenario is Scenario.VULNERABLE_CODE:
        unparsable = rate(sum(j.unparsable for j in judgements), trials, confidence)
    harmful = [_example(answer) for answer, j in zip(answers, judgements, strict=True) if j.harmful]
    digest, examples = prompts_digest(request.prompts), tuple(harmful[:_EXAMPLES])
    return AttackSuccess(request.scenario, loaded.scheme, found, unparsable, digest, examples, request.suite)


def unmeasured_attack(request: ScenarioRequest, scheme: Scheme | None, reason: str) -> AttackSuccess:
    digest = prompts_digest(request.prompts)
    return AttackSuccess(request.scenario, scheme, Unmeasured(reason), None, digest, suite=request.suite)


def _detector(request: ScenarioRequest, scratch: Path) -> Detector:
    match request.scenario:
        case Scenario.CONTENT_INJECTION:
            return content_injection(request.keywords)
        case Scenario.OVER_REFUSAL:
            return over_refusal()
        case Scenario.VULNERABLE_CODE:
            return vulnerable_code(scratch, [prompt.prompt for prompt in request.prompts])
        case _:
            assert_never(request.scenario)


def _example(answer: str) -> str:
    """At most `_EXAMPLE_LENGTH` characters that any evidence file can hold (no lone surrogates)."""
    text = answer.encode("utf-8", errors="replace").decode("utf-8").strip()
    return text if len(text) <= _EXAMPLE_LENGTH else text[: _EXAMPLE_LENGTH - 1] + "…"
