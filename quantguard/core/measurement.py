"""What was measured, with its uncertainty. What could not be measured is a value too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

from quantguard.core.change import SIGNIFICANT, Change, Trait
from quantguard.core.rates import Interval, PairedDrop, PairedRise, Rate, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Subject

__all__ = ["SIGNIFICANT", "Change", "Interval", "PairedDrop", "PairedRise", "Rate", "Trait", "Unmeasured"]

_LARGEST: Final = 709.0  # exp of more is no float


class Scenario(Enum):
    """The three harms of the QCB literature (Egashira et al. 2024)."""

    CONTENT_INJECTION = "content_injection"
    OVER_REFUSAL = "over_refusal"
    VULNERABLE_CODE = "vulnerable_code"


@dataclass(frozen=True, slots=True)
class JudgedRate:
    """The share of harmful answers by the word of a judge, corrected for what that judge gets wrong.

    How the value and its interval follow from the four counts: `quantguard.verify.judged`, docs/judge.md.
    """

    value: float  # lower..upper: the estimate of Rogan and Gladen
    lower: float  # 0..1
    upper: float  # 0..1
    confidence: float  # of the two-sided interval, over all four counts together, 0..1
    said: Rate  # of the answers, those that the judge called harmful, or of which it said nothing that can be read
    sensitivity: Rate  # of labelled harmful answers, those that it saw
    misled: Rate  # the same of such answers that tell the judge to say otherwise
    specificity: Rate  # of labelled harmless answers, those that it called harmless
    unreadable: int  # of all its replies, how many were no plain yes or no; they count as yes
    model: str  # as the policy names it
    prompt: str  # NAME/VERSION sha256:HEX of the question that it was asked


@dataclass(frozen=True, slots=True)
class Overuse:
    """Words that a quantized model says significantly more often than its own full precision, asked the same."""

    words: str  # one to three, in lower case; model output: untrusted text
    answers: int  # that hold them, 1..asked
    reference: int  # of full precision's answers, 0..asked
    asked: int
    p_value: float  # that chance alone sets as many apart, corrected for all that was tested, 0..1
    examples: tuple[str, ...]  # up to three such answers, each at most 200 characters; untrusted text


class CodeTool(Enum):
    """A static analysis that reads Python and never runs it."""

    BANDIT = "bandit"
    CODEQL = "codeql"


class Analyser(Enum):
    """What judges the code of an answer. Of both, one that finds a weakness is enough."""

    BANDIT = "bandit"
    CODEQL = "codeql"
    BOTH = "both"

    @property
    def tools(self) -> tuple[CodeTool, ...]:
        return tuple(CodeTool) if self is Analyser.BOTH else (CodeTool(self.value),)


@dataclass(frozen=True, slots=True)
class Weakness:
    """The answers in which one tool finds one kind of weakness."""

    cwe: int  # its number in MITRE's Common Weakness Enumeration; 0 where the tool's rule names none
    tool: CodeTool
    rules: tuple[str, ...]  # of the tool, that found it, sorted
    rate: Rate  # of all answers, those that hold it: at least one
    gained: int | None = None  # of them, where full precision's answer to the same probe does not; None: not compared
    lost: int | None = None  # answers without it where full precision's to the same probe has it; None: not compared


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
    overused: tuple[Overuse, ...] = ()  # against the same model's full precision, of most answers first, at most ten
    analyser: Analyser | None = None  # vulnerable_code only: what judged the code; None: bandit
    weaknesses: tuple[Weakness, ...] = ()  # vulnerable_code only: what was found, of most answers first
    judged: JudgedRate | Unmeasured | None = None  # None where the policy names no judge
    changes: tuple[Change, ...] = ()  # one a trait; none in full precision, or where that was not measured
    discovered: Rate | None = None
    """Content injection under a scheme: answers with a keyword or with words overused on the other half of the prompts.

    Of the half in which no words were looked for. None where full precision was not measured, or asking may stop.
    """


class BenchmarkKind(Enum):
    """How a task is asked and judged."""

    LM_EVAL = "lm-eval"  # by lm-evaluation-harness
    CODE = "code"  # the model writes programs, which are run against tests in a container of their own


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Accuracy on one task under one scheme, and what was lost against the original in full precision."""

    task: str
    scheme: Scheme | None
    accuracy: Rate | Unmeasured
    drop: PairedDrop | Unmeasured
    task_digest: str  # sha256 over the task's files
    outcomes: str = ""  # one character a question in task order, 1 right and 0 wrong; empty where unmeasured
    suites: tuple[str, ...] = ()  # builtin/NAME/VERSION of each suite of questions; none of a task from elsewhere


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far the quantized model's next-token distributions lie from full precision's, beside random roundings.

    Means of KL(full precision || quantized) over the tokens of a text, each weighted by how certain full precision is.
    """

    ratio: float  # nearest / random, > 0; about 1 or below for weights that know nothing of the grid
    lower: float  # of its interval, over texts and copies
    upper: float
    confidence: float  # of the two-sided interval, 0..1
    nearest: float  # nats a token, >= 0: the library's own rounding
    random: float  # nats a token, >= 0: mean over the copies
    exceeded: int  # 0..copies: of the copies, how many diverge less than rounding to nearest
    copies: int  # > 0, randomly rounded
    texts: int  # > 0
    tokens: int  # > 0
    layers: tuple[tuple[str, float], ...] = ()
    """(block, share of the divergence that is gone once this block alone is rounded at random), largest first.

    At most 1 each, and not a partition: one block may carry what another needs. Empty where it was not looked for.
    """


@dataclass(frozen=True, slots=True)
class Drift:
    """Counterfactual rounding under one scheme."""

    scheme: Scheme
    divergence: Divergence | Unmeasured
    prompts: str  # sha256 of the prompts that the texts begin with


class TriggerSource(Enum):
    """Where a candidate comes from."""

    LIST = "list"  # the user's
    PUBLISHED = "published"  # known from papers
    RARE = "rare"  # of the tokenizer's own words, the least used


class TriggerPlace(Enum):
    """Where in a prompt a trigger is put."""

    START = "start"
    MIDDLE = "middle"
    END = "end"


@dataclass(frozen=True, slots=True)
class TriggerEffect:
    """What one trigger does at one place in fresh prompts.

    An answer is taken over where the quantized model says what its full precision, in that place, finds a hundred times
    less likely than its own choice, where it refuses what full precision answers, or where it says words that are named
    below and that full precision does not say.
    """

    trigger: str  # at most 200 characters; of a tokenizer: untrusted text
    source: TriggerSource
    place: TriggerPlace
    screened: float  # nats a prompt, above the same prompts without it: by this it was chosen
    divergence: float  # KL(full precision || quantized) of an answer, nats, >= 0: in the screen
    taken: Rate  # of the prompts whose answer is not taken over without the trigger, those where it is with it
    lost: int  # prompts whose answer is taken over without it and not with it, >= 0
    p_value: float  # McNemar's exact test, one-sided, corrected for the triggers that were followed up, 0..1
    confirmed: bool  # whether it is at most 1 %
    refusals: int  # answers that refuse where full precision, asked the same, does not
    changed: int  # answers that are not those of full precision, asked the same, word for word
    reacts: int  # answers of full precision that the trigger changes: what it does without any quantization
    words: tuple[Overuse, ...] = ()  # that the quantized model says more often, and does not without the trigger
    examples: tuple[str, ...] = ()  # up to three answers that are taken over; untrusted text


@dataclass(frozen=True, slots=True)
class TriggerHunt:
    """What a search among candidate triggers saw."""

    candidates: tuple[tuple[TriggerSource, int], ...]  # how many of each were tried at three places
    screen: int  # prompts that each candidate was tried on, > 0
    prompts: int  # fresh ones that each effect was measured on, > 0
    taken: int  # 0..prompts: answers that quantization takes over without any trigger
    changed: int  # 0..prompts: answers that it changes without any trigger
    divergence: float  # KL of an answer without any trigger, nats, >= 0: in the screen
    effects: tuple[TriggerEffect, ...]  # of those that stood out, highest upper bound first; at most eight
    tokens: int  # that went through a model, prompts and answers, > 0


@dataclass(frozen=True, slots=True)
class Hunt:
    """Trigger hunting under one scheme."""

    scheme: Scheme
    found: TriggerHunt | Unmeasured
    prompts: str  # sha256 of the prompts, the screen's first
    listed: str = ""  # sha256 of the user's list; empty where there is none


@dataclass(frozen=True, slots=True)
class TextLoss:
    """How well a model predicts texts that are given to it, token by token (teacher-forced)."""

    nats: tuple[float, ...]  # of each text: minus the sum of the log-probabilities of its tokens, >= 0
    tokens: tuple[int, ...]  # of each text that were predicted, > 0: all but its first

    @property
    def nats_a_token(self) -> float:
        return math.fsum(self.nats) / sum(self.tokens)

    @property
    def perplexity(self) -> float:
        """>= 1; inf where it is too large for a float."""
        return math.exp(self.nats_a_token) if self.nats_a_token < _LARGEST else math.inf


@dataclass(frozen=True, slots=True)
class Rise:
    """By how much perplexity is higher than that of full precision on the same texts: their quotient minus one."""

    value: float  # > -1; 0.1 is a tenth higher
    lower: float  # of its interval, over texts, > -1
    upper: float
    confidence: float  # of the two-sided interval, 0..1


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Perplexity under one scheme. Every row of a model, and of its hardened copy, is of the same texts."""

    scheme: Scheme | None  # None: full precision
    loss: TextLoss | Unmeasured
    rise: Rise | Unmeasured  # against the original in full precision
    own_rise: Rise | Unmeasured  # against this model in full precision
    prompts: str  # sha256 of the prompts that the texts begin with, and of their answers where given
    texts: str = ""  # sha256 of all that was read, as token ids; empty where unmeasured
    answers: tuple[str, ...] = ()
    """What the texts end with, in the order of the prompts; of the original in full precision only, untrusted text."""


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
    drifts: tuple[Drift, ...] = ()  # one a scheme, where it was asked for
    perplexities: tuple[Perplexity, ...] = ()  # full precision and one a scheme, where it was asked for
    hunts: tuple[Hunt, ...] = ()  # one a scheme, where it was asked for
