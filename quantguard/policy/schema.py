"""The policy as it is written: a strict schema. Unknown keys, coerced types and meaningless limits are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from quantguard.core.finding import Severity
from quantguard.core.judging import endpoint_problem
from quantguard.core.measurement import Analyser, BenchmarkKind, Scenario
from quantguard.core.scheme import Scheme
from quantguard.policy.section import UNIQUE_ITEMS, Keyword, Limit, Path_, Section, Text, no_blank, unique


def _base_address(value: str) -> str:
    if problem := endpoint_problem(value):
        raise ValueError(problem)
    return value


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
NewTokens = Annotated[int, Field(ge=1, le=4096)]


class HardenMode(Enum):
    NEVER = "never"
    WHEN_SUSPICIOUS = "when-suspicious"
    ALWAYS = "always"


class Sampling(Enum):
    """How many probes are asked."""

    FIXED = "fixed"  # all of them; exact intervals
    SEQUENTIAL = "sequential"  # until it is settled on which side of the limits the rates lie; always-valid intervals


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


class ScenarioLimits(Section):
    """What one harmful behaviour may do, as the upper bound of its rate."""

    probes: Path_  # builtin (the suite of this scenario), or a prompts JSONL, relative to the policy file
    max_upper_bound: Limit
    max_new_tokens: NewTokens
    max_rise: Limit | None = None  # upper bound of the paired rise over full precision; absent: informs only


class ContentInjectionLimits(ScenarioLimits):
    keywords: Annotated[
        tuple[Keyword, ...],
        Field(min_length=1, max_length=1000, json_schema_extra=UNIQUE_ITEMS),
        AfterValidator(unique),
    ]  # an answer that holds one of them counts as an injection


class Judge(Section):
    """A language model that is asked, beside the rules, whether answers refuse."""

    endpoint: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_base_address)]
    model: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(no_blank)]  # as the endpoint names it
    max_upper_bound: Limit  # of the rate by the judge, corrected for the judge's own errors
    concurrency: Annotated[int, Field(ge=1, le=64)] = 8  # questions at a time


class OverRefusalLimits(ScenarioLimits):
    judge: Judge | None = None  # absent: the rules alone; with it every probe is asked, whatever sampling says


class VulnerableCodeLimits(ScenarioLimits):
    max_unparsable: Limit  # upper bound of the share of answers that are not Python
    analyser: Analyser = Analyser.BANDIT  # codeql needs its CLI on PATH, with its query packs


class AttackLimits(Section):
    content_injection: ContentInjectionLimits | None = None
    over_refusal: OverRefusalLimits | None = None
    vulnerable_code: VulnerableCodeLimits | None = None
    sampling: Sampling = Sampling.FIXED

    model_config = ConfigDict(
        json_schema_extra={"minProperties": 1, "not": {"required": ["sampling"], "maxProperties": 1}}
    )

    @model_validator(mode="after")
    def _at_least_one(self) -> AttackLimits:
        if not self.by_scenario():
            known = ", ".join(scenario.value for scenario in Scenario)
            raise ValueError(f"expected at least one scenario of {known}")
        return self

    def by_scenario(self) -> tuple[tuple[Scenario, ScenarioLimits], ...]:
        """The scenarios that the policy limits, in a fixed order."""
        limits: tuple[tuple[Scenario, ScenarioLimits | None], ...] = (
            (Scenario.CONTENT_INJECTION, self.content_injection),
            (Scenario.OVER_REFUSAL, self.over_refusal),
            (Scenario.VULNERABLE_CODE, self.vulnerable_code),
        )
        return tuple((scenario, limit) for scenario, limit in limits if limit is not None)


class BenchmarkLimits(Section):
    # builtin or builtin/NAME (our own questions), or the name of an lm-eval task
    task: Annotated[str, Field(pattern=r"^(builtin/)?[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
    max_drop: Limit  # upper bound of the accuracy lost against the original in full precision
    path: Path_ | None = None  # lm-eval task YAML or task folder, relative to the policy; absent: built in
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None  # first questions only, of each task
    kind: BenchmarkKind = BenchmarkKind.LM_EVAL  # code: path is a JSONL of problems, and the built-in ones where absent
    max_new_tokens: NewTokens | None = None  # of each program, 512 where absent; kind code only

    @model_validator(mode="after")
    def _tokens_of_programs(self) -> BenchmarkLimits:
        if self.max_new_tokens is not None and self.kind is not BenchmarkKind.CODE:
            raise ValueError("max_new_tokens is for kind: code; an lm-eval task says itself how it generates")
        return self


class Counterfactual(Section):
    """How much further from full precision the library's own rounding may lie than rounding the weights at random."""

    prompts: Path_  # neutral (built in), or a prompts JSONL, relative to the policy file; asked in full precision
    samples: Annotated[int, Field(ge=1, le=100_000)]  # how many of them are used
    max_ratio: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]  # of the upper end of the interval


class PerplexityLimits(Section):
    """By how much texts may surprise the model more than they do the original in full precision."""

    prompts: Path_  # neutral (built in), or a prompts JSONL, relative to the policy file; its answers are read too
    samples: Annotated[int, Field(ge=32, le=100_000)]  # texts: with fewer the interval is often too narrow
    max_rise: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]  # 0.1: a tenth; of the interval's end


class Triggers(Section):
    """How many answers a word in the prompt may hand over to quantization."""

    list: Path_ | None = None  # triggers, one a line or JSONL, relative to the policy file; absent: none of your own
    rare: Annotated[int, Field(ge=0, le=1_000_000)] = 64  # words of the tokenizer that are tried too, the rarest first
    prompts: Path_  # neutral (built in), or a prompts JSONL, relative to the policy file
    screen: Annotated[int, Field(ge=1, le=1000)] = 8  # prompts that each candidate is tried on
    confirm: Annotated[int, Field(ge=1, le=100_000)] = 64  # others, that what stands out is confirmed on
    max_upper_bound: Limit  # of the share of answers that a trigger takes over, for all that were followed up together


class Differential(Section):
    """How many more answers may have a trait than full precision's to the same prompts: upper bounds of paired rises.

    Each holds for the probes of every scenario, under every scheme. An absent one informs only.
    """

    refusal: Limit | None = None
    unparsable: Limit | None = None  # vulnerable_code only
    language: Limit | None = None
    length: Limit | None = None  # much longer, and much shorter
    wording: Limit | None = None
    degenerate: Limit | None = None

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    @model_validator(mode="after")
    def _at_least_one(self) -> Differential:
        if not self.limits():
            raise ValueError(f"expected at least one limit of {', '.join(type(self).model_fields)}")
        return self

    def limits(self) -> tuple[tuple[str, float], ...]:
        """(key, limit) of those that are there, in a fixed order."""
        found = ((key, getattr(self, key)) for key in type(self).model_fields)
        return tuple((key, limit) for key, limit in found if limit is not None)


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
    counterfactual: Counterfactual | None = None  # absent: not measured
    perplexity: PerplexityLimits | None = None  # absent: not measured
    triggers: Triggers | None = None  # absent: not measured
    differential: Differential | None = None  # absent: informs only

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


def policy_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a policy file. Rules between keys and about other files are checked by `load_policy`."""
    return json_schema(Policy, "urn:quantguard.policy:1")


def json_schema(root: type[Section], name: str) -> dict[str, Any]:
    """JSON Schema (2020-12), called `name`, of the files whose top level is `root`."""
    body = _without_null(root.model_json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": name, **body}


def schema_text(schema: dict[str, Any]) -> str:
    """A JSON Schema as it is checked in."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=True) + "\n"


def _without_null(node: Any) -> Any:
    """An absent key is absent, never null: what pydantic writes for an optional one would let null through."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _without_null(value) for key, value in node.items() if not (key == "default" and value is None)}
    choices = [choice for choice in plain.pop("anyOf", []) if choice != {"type": "null"}]
    return {**plain, **choices[0]} if len(choices) == 1 else plain


def keys_at(location: Sequence[str | int], root: type[BaseModel] = Policy) -> tuple[str, ...]:
    """The keys that the schema `root` knows for the mapping at `location`; empty where it is no mapping."""
    section = root
    for part in location:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        nested = _section_in(fields[part].annotation) if part in fields else None
        if nested is None:
            return ()
        section = nested
    return tuple(field.alias or name for name, field in section.model_fields.items())


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation such as `tuple[Section, ...]` or `Section | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if (found := _section_in(part)) is not None:
            return found
    return None


def policy_schema_text() -> str:
    """The JSON Schema as it is checked in at `policies/policy.schema.json`."""
    return schema_text(policy_schema())
