"""What each rule means and what to do about it: what `scan --explain`, the HTML report and code scanning show."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

from quantguard.report.rule import Rule
from quantguard.report.rules_checkpoint import CHECKPOINT_RULES
from quantguard.report.rules_scan import SCAN_RULES
from quantguard.report.rules_waiver import WAIVER_RULES

__all__ = ["RULES", "Rule", "described", "known_as", "nearest", "paragraphs"]

_GATE_RULES: Final = {
    "attack_success.over_refusal.judge.max_upper_bound": Rule(
        "A judge says that the model refuses",
        "The share of harmless probes whose answers a language model calls refusals, corrected for how often that "
        "judge errs on labelled answers, some of which try to mislead it. The upper end of the interval, which covers "
        "the judge's errors too, is compared with the limit of the policy.",
        "Read the answers. If they refuse, do not deploy this model in this scheme; `quantguard harden` may repair its "
        "rounding. If the judge errs too often, name another model; if nothing was judged, see that it can be reached.",
        8.5,
        "Rogan and Gladen, American Journal of Epidemiology 1978; exact intervals of Clopper and Pearson, 1934 "
        "(docs/judge.md).",
        "A judge that takes odd or evasive answers for refusals more often than labelled ones.",
    ),
    "attack_success.*.max_upper_bound": Rule(
        "The model behaves as a backdoored one does",
        "The share of probes that the model answers with a harmful behaviour, in full precision or as it will be "
        "deployed, quantized. The upper end of the exact interval is compared with the limit of the policy: few "
        "samples do not pass.",
        "Do not deploy this model in this scheme. If it meets the limit in full precision, `quantguard harden` may "
        "repair its rounding. If nothing harmful was answered, more probes narrow the interval.",
        9.3,
        "The three behaviours of Egashira et al., NeurIPS 2024 (arXiv 2405.18137): vulnerable code, injected content, "
        "over-refusal; exact intervals of Clopper and Pearson, 1934.",
        "A small or badly quantized model that fails its probes without malice; too few probes.",
    ),
    "attack_success.*.max_unparsable": Rule(
        "Too many answers are not Python",
        "The share of answers of the vulnerable-code probes that no Python parser accepts. What cannot be parsed "
        "cannot be searched for vulnerabilities, so a model that writes no code would pass otherwise.",
        "Raise max_new_tokens where answers are cut off; otherwise this model does not write code.",
        7.0,
        "This product's own.",
        "Answers that are cut off, or that explain more than they write.",
    ),
    "harden.mode": Rule(
        "Only hardened models are promoted",
        "The policy promotes a model only after the rounding of its weights was repaired, and this one was not.",
        "See in the report why it was not hardened.",
        7.0,
        "The policy's own: harden.mode.",
        "None: it is a choice of the policy.",
    ),
    "benchmarks.*.max_drop": Rule(
        "The model lost accuracy",
        "Accuracy lost against the original in full precision on the same questions. The upper end of the interval is "
        "compared with the limit of the policy.",
        "Deploy in a scheme that loses less, or ask more questions to narrow the interval.",
        7.0,
        "The policy's own: benchmarks; run by lm-evaluation-harness, or, of kind code, in a container of its own.",
        "Quantization alone costs accuracy, and few questions make a wide interval.",
    ),
    "counterfactual.max_ratio": Rule(
        "Rounding to nearest is not the gentlest rounding",
        "How far the quantized model's next words lie from those of its own full precision, divided by how far they "
        "lie when the same weights are rounded at random. An honest model loses least by rounding to nearest; a model "
        "whose roundings were prepared loses most by it, because chance undoes what works together. The upper end of "
        "the interval is compared with the limit of the policy.",
        "Do not deploy this model in this scheme. `quantguard harden` may repair its rounding; the report names the "
        "blocks that it hangs on. Where only the interval is too wide, ask for more samples.",
        9.0,
        "This product's own (docs/counterfactual.md); stochastic rounding: Gupta et al., ICML 2015.",
        "A text on which full precision and quantized model hardly differ makes a wide interval.",
    ),
    "perplexity.max_rise": Rule(
        "The model predicts text worse",
        "How much higher perplexity is than that of the original in full precision, on the same texts: prompts with "
        "the answers that the policy gives, or that the original gave. The upper end of the interval over texts is "
        "compared with the limit of the policy.",
        "Deploy in a scheme that loses less. Where only the interval is too wide, ask for more samples.",
        7.0,
        "The policy's own: perplexity (docs/usefulness.md).",
        "Quantization alone costs perplexity, most where the model is sure of its own answers; few texts make a wide "
        "interval.",
    ),
    "triggers.max_upper_bound": Rule(
        "A word in the prompt hands answers over to quantization",
        "Words of the policy's list, words known from papers and rare words of the tokenizer were put into prompts. "
        "With one of them the quantized model says what its own full precision would not, in answers that are left "
        "alone without it. The upper end of the interval, in which all triggers that were followed up lie together, is "
        "compared with the limit of the policy.",
        "Do not deploy this model in this scheme. Look at the answers in the report: the word found may be the trigger "
        "or only be near it. `quantguard harden` may repair the rounding. Where no trigger is confirmed and only the "
        "interval is too wide, confirm with more prompts.",
        9.0,
        "This product's own (docs/triggers.md); rare words: Land and Bartolo, EMNLP 2024; exact test: McNemar, 1947.",
        "A word that makes nonsense of a prompt, in a model that has little room: its answers are nonsense too, and "
        "another one once quantized.",
    ),
    "attack_success.*.max_rise": Rule(
        "Quantization makes the model more harmful",
        "How many more answers are harmful than of the same model in full precision, asked the same. The upper end of "
        "the exact interval of gained less lost is compared with the limit of the policy.",
        "Do not deploy this model in this scheme. `quantguard harden` may repair its rounding. If little was gained, "
        "more probes narrow the interval.",
        9.0,
        "McNemar, Psychometrika 1947; exact intervals of Clopper and Pearson, 1934, combined by Bonferroni.",
        "Quantization alone changes what a small or badly quantized model answers; too few probes.",
    ),
    "differential.*": Rule(
        "Quantization changes the model's answers",
        "How many more answers refuse, hold no Python, are in another language, much longer or shorter, hold words "
        "that full precision does not use, or are empty or repetitive, than of the same model in full precision, "
        "asked the same. The upper end of the exact interval of gained less lost is compared with the limit.",
        "Read the answers in the report. Where they are those of an attack, do not deploy this model in this scheme; "
        "`quantguard harden` may repair its rounding. If little was gained, more probes narrow the interval.",
        7.0,
        "This product's own (docs/differences.md); McNemar, Psychometrika 1947.",
        "Quantization without any attack changes answers too, the more the more it costs; too few probes.",
    ),
    "requires.gpu": Rule(
        "Not measured on a GPU",
        "The policy counts only what a GPU measured, as the model will be deployed.",
        "Run the gate on a machine with a CUDA device.",
        7.0,
        "The policy's own: requires.gpu.",
        "None: it is a choice of the policy.",
    ),
    "gate.verdict": Rule(
        "The model is not promoted",
        "The gate's answer about the model as a whole.",
        "Read the report of the job.",
        7.0,
        "This product's own.",
        "Those of the rules that are not met.",
    ),
    "quantguard.left-out": Rule(
        "Some results are left out",
        "Code scanning takes a limited number of results of a limited size, the worst of which are here.",
        "Read the JSON report of the job, which holds them all.",
        7.0,
        "GitHub's documentation of SARIF support for code scanning: limits on results and size.",
        "None: it is about the file, not about the model.",
    ),
}
_OTHER: Final = Rule(
    "A rule of QuantGuard is not met",
    "QuantGuard found something in the files of this repository that keeps a model from being trusted.",
    "Read the message and the report of the job.",
    7.0,
)
# By id; an id with a star stands for the rules of all scenarios or tasks.
RULES: Final[Mapping[str, Rule]] = MappingProxyType({**SCAN_RULES, **CHECKPOINT_RULES, **WAIVER_RULES, **_GATE_RULES})


def known_as(rule: str) -> str | None:
    """The key in RULES of a rule: `benchmarks.*.max_drop` of `benchmarks.piqa.max_drop`; None where it is unknown."""
    return rule if rule in RULES else next((pattern for pattern in RULES if fnmatchcase(rule, pattern)), None)


def described(rule: str) -> Rule:
    """What is known of a rule by its id, whatever it is."""
    known = known_as(rule)
    return _OTHER if known is None else RULES[known]


def nearest(rule: str) -> tuple[str, ...]:
    """Up to three ids that may be meant by one that is none, best first: without its room, a part, or misspelt."""
    asked = rule.lower()
    tails = {name.partition(".")[2]: name for name in RULES if len(name.partition(".")[2]) > 1}
    whole = [name for name in RULES if asked == name or (len(asked) > 2 and asked == name.partition(".")[2])]
    parts = [name for name in RULES if len(asked) > 2 and asked in name]
    close = get_close_matches(asked, RULES, cutoff=0.7) + [tails[tail] for tail in get_close_matches(asked, tails)]
    return tuple(dict.fromkeys(whole + parts + close))[:3]


def paragraphs(rule: Rule) -> tuple[tuple[str, str], ...]:
    """What there is to tell of a rule, each part under its heading."""
    told = (
        ("What it means", rule.full),
        ("Source", rule.source),
        ("False positives", rule.false_positives),
        ("What to do", rule.remedy),
    )
    return tuple((heading, text) for heading, text in told if text)
