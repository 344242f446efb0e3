"""What a model may do, as a policy writes it: the sections that hold limits on measurements."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from quantguard.core.judging import endpoint_problem
from quantguard.core.measurement import Analyser, BenchmarkKind, Scenario
from quantguard.policy.section import UNIQUE_ITEMS, Keyword, Limit, Path_, Section, no_blank, unique


def _base_address(value: str) -> str:
    if problem := endpoint_problem(value):
        raise ValueError(problem)
    return value


NewTokens = Annotated[int, Field(ge=1, le=4096)]


class Sampling(Enum):
    """How many probes are asked."""

    FIXED = "fixed"  # all of them; exact intervals
    SEQUENTIAL = "sequential"  # until it is settled on which side of the limits the rates lie; always-valid intervals


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
