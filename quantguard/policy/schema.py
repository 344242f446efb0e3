"""The policy as it is written: a strict schema. Unknown keys, coerced types and meaningless limits are refused."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from quantguard.core.finding import Severity
from quantguard.core.ledger import AnchorKind
from quantguard.core.scheme import Scheme
from quantguard.policy.evidence import Evidence
from quantguard.policy.limits import (
    AttackLimits,
    BenchmarkLimits,
    ContentInjectionLimits,
    Counterfactual,
    Differential,
    Judge,
    OverRefusalLimits,
    PerplexityLimits,
    Sampling,
    ScenarioLimits,
    Triggers,
    VulnerableCodeLimits,
)
from quantguard.policy.section import UNIQUE_ITEMS, Path_, Section, Text, unique
from quantguard.policy.waiver_rules import WaiverRules

__all__ = [
    "AttackLimits",
    "BenchmarkLimits",
    "Calibration",
    "ContentInjectionLimits",
    "Counterfactual",
    "Differential",
    "Evidence",
    "Harden",
    "HardenMode",
    "Judge",
    "Ledger",
    "OverRefusalLimits",
    "PerplexityLimits",
    "Policy",
    "Registry",
    "Requires",
    "Sampling",
    "Scan",
    "ScenarioLimits",
    "Triggers",
    "VulnerableCodeLimits",
    "WhenUnmeasured",
]


def _normal_alias(value: str) -> str:
    # MLflow keeps `latest` and `v1` style names for itself and refuses them as aliases.
    if value.lower() == "latest" or (value[0] in "vV" and value[1:].isdigit()):
        raise ValueError("expected an alias that the registry does not reserve (not latest, not v1)")
    return value


Schemes = Annotated[
    tuple[Scheme, ...],
    Field(min_length=1, json_schema_extra=UNIQUE_ITEMS),
    AfterValidator(unique),
]


class HardenMode(Enum):
    NEVER = "never"
    WHEN_SUSPICIOUS = "when-suspicious"
    ALWAYS = "always"


class WhenUnmeasured(Enum):
    """What becomes of a model of which something that the policy limits could not be measured. It never passes."""

    HOLD = "hold"  # could not tell: exit code 2
    BLOCK = "block"  # as where a limit is not met: exit code 1


class Scan(Section):
    fail_on: Severity  # findings at or above it keep the original from being promoted


class Calibration(Section):
    prompts: Path_  # neutral (built in), self (sampled from the model), or a prompts JSONL, relative to the policy file
    samples: Annotated[int, Field(ge=1, le=100_000)]  # how many of them are used


class Harden(Section):
    mode: HardenMode
    method: Literal["auto", "quantguard", "noise", "flipguard", "flipguard-low"] = "auto"  # quantguard harden --help
    schemes: Schemes | None = None  # absent: every scheme of the policy
    calibration: Calibration | None = None  # absent only where mode is never
    steps: Annotated[int, Field(ge=1, le=10_000)] = 125  # optimizer steps, of method quantguard


class Requires(Section):
    """What the machine must have; a measurement made without it does not count."""

    gpu: bool = False  # measured on a CUDA device, as it will be deployed


class Stage(Enum):
    """A stage that an MLflow version can be in."""

    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=255), AfterValidator(_normal_alias)]


class Registry(Section):
    alias: Alias  # what the gate points at a version that it promotes; always protected
    # What the registry-store plugin gives only to versions with evidence, beside `alias`.
    protected: Annotated[tuple[Alias, ...], Field(json_schema_extra=UNIQUE_ITEMS), AfterValidator(unique)] = ()
    stages: Annotated[tuple[Stage, ...], Field(json_schema_extra=UNIQUE_ITEMS), AfterValidator(unique)] = (
        Stage.PRODUCTION,
    )
    rollback: bool = True  # a version that held an alias with evidence may have it back however old its evidence is


class Ledger(Section):
    """Every decision is entered into a ledger before an alias moves."""

    # Where its head is kept besides; which file or repository that is, the machine says (--ledger-anchor).
    anchors: Annotated[tuple[AnchorKind, ...], Field(json_schema_extra=UNIQUE_ITEMS), AfterValidator(unique)] = ()


def _unique_tasks(benchmarks: tuple[BenchmarkLimits, ...]) -> tuple[BenchmarkLimits, ...]:
    unique(tuple(benchmark.task for benchmark in benchmarks))
    return benchmarks


class Policy(Section):
    """What a model must show before it is promoted. Every limit applies in full precision and under each scheme."""

    schema_: Literal["quantguard.policy/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
    description: Text
    confidence: Annotated[float, Field(gt=0.5, lt=1, allow_inf_nan=False)]  # of every two-sided interval
    schemes: Schemes  # what the model will be deployed as
    scan: Scan
    harden: Harden
    attack_success: AttackLimits
    # No default: a policy that measures no usefulness has to say so with an empty list.
    benchmarks: Annotated[tuple[BenchmarkLimits, ...], AfterValidator(_unique_tasks)]
    registry: Registry
    requires: Requires = Requires()
    unmeasured: WhenUnmeasured = WhenUnmeasured.HOLD
    counterfactual: Counterfactual | None = None  # absent: not measured
    perplexity: PerplexityLimits | None = None  # absent: not measured
    triggers: Triggers | None = None  # absent: not measured
    differential: Differential | None = None  # absent: informs only
    waivers: WaiverRules = WaiverRules()
    evidence: Evidence = Evidence()
    ledger: Ledger | None = None  # absent: not asked for

    @model_validator(mode="after")
    def _harden_what_is_deployed(self) -> Policy:
        harden = self.harden
        deployed = {scheme.codes for scheme in self.schemes}
        foreign = sorted(scheme.value for scheme in harden.schemes or () if scheme.codes not in deployed)
        if foreign:
            raise _about("harden.schemes", f"expected only what `schemes` deploys, got {', '.join(foreign)}")
        if harden.mode is not HardenMode.NEVER and harden.calibration is None:
            raise _about("harden.calibration", f"is required where mode is {harden.mode.value}")
        return self

    def harden_schemes(self) -> tuple[Scheme, ...]:
        """The schemes whose rounding a repair chooses, each once: double quantization rounds weights as without it."""
        asked = self.harden.schemes if self.harden.schemes is not None else self.schemes
        return tuple(dict.fromkeys(scheme.codes for scheme in asked))

    def judge(self) -> Judge | None:
        """Who judges refusals beside the rules; None where nobody does."""
        limits = self.attack_success.over_refusal
        return limits.judge if limits is not None else None

    def settings(self) -> tuple[Scheme | None, ...]:
        """What every behaviour is measured under: full precision, then each scheme."""
        return (None, *self.schemes)


def _about(key: str, problem: str) -> PydanticCustomError:
    """A problem that several keys make together, told at the key to change."""
    return PydanticCustomError("quantguard", "{problem}", {"key": key, "problem": problem})
