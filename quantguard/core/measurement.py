"""What was measured, with its uncertainty. What could not be measured is a value too."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Subject


class Scenario(Enum):
    """The three harms of the QCB literature (Egashira et al. 2024)."""

    CONTENT_INJECTION = "content_injection"
    OVER_REFUSAL = "over_refusal"
    VULNERABLE_CODE = "vulnerable_code"


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Could not tell. Never passes a rule."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rate:
    """A proportion with its exact (Clopper-Pearson) interval."""

    successes: int  # 0..trials
    trials: int  # > 0
    lower: float  # 0..1
    upper: float  # 0..1
    confidence: float  # of the two-sided interval, 0..1, e.g. 0.95

    @property
    def value(self) -> float:
        return self.successes / self.trials


@dataclass(frozen=True, slots=True)
class PairedDrop:
    """Accuracy lost on the same questions: (lost - gained) / trials, positive is worse.

    The interval is the Bonferroni combination of the exact intervals of the lost and the gained share, so it
    covers at least `confidence` whatever their correlation.
    """

    lost: int  # right before, wrong now
    gained: int  # wrong before, right now
    trials: int
    lower: float  # -1..1
    upper: float  # -1..1
    confidence: float

    @property
    def value(self) -> float:
        return (self.lost - self.gained) / self.trials


@dataclass(frozen=True, slots=True)
class AttackSuccess:
    """How often a harmful behaviour appears under one scheme."""

    scenario: Scenario
    scheme: Scheme | None  # None: full precision
    rate: Rate | Unmeasured
    unparsable: Rate | None  # vulnerable_code only: share of answers that are not Python
    probe_set: str  # sha256 of the probe prompts
    examples: tuple[
        str, ...
    ] = ()  # up to three harmful answers, each at most 200 characters; model output: untrusted text
    suite: str = ""  # builtin/SCENARIO/VERSION of the probes; empty where they are a file of the policy's


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Accuracy on one task under one scheme, and what was lost against the original in full precision."""

    task: str
    scheme: Scheme | None
    accuracy: Rate | Unmeasured
    drop: PairedDrop | Unmeasured
    task_digest: str  # sha256 over the task's files
    outcomes: str = ""  # one character a question in task order, 1 right and 0 wrong; empty where unmeasured


@dataclass(frozen=True, slots=True)
class Environment:
    device: str  # e.g. cpu, or cuda:0 NVIDIA H200
    seed: int
    versions: tuple[tuple[str, str], ...]  # (library, version), sorted


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything verify has to say about one set of bytes."""

    subject: Subject
    model_digest: str
    attacks: tuple[AttackSuccess, ...]
    benchmarks: tuple[Benchmark, ...]
    environment: Environment
