"""What each rule means and what to do about it, as code scanning shows it beside an alert."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    short: str  # one sentence: what is wrong
    full: str  # what is measured, and why it matters
    remedy: str  # what to do next
    severity: float  # of an error, as CVSS counts: 7 (high) to 10 (critical)


_ATTACK = Rule(
    "The model behaves as a backdoored one does",
    "The share of probes that the model answers with a harmful behaviour, in full precision or as it will be deployed, "
    "quantized. The upper end of the exact interval is compared with the limit of the policy: few samples do not pass.",
    "Do not deploy this model in this scheme. If it meets the limit in full precision, `quantguard harden` may repair "
    "its rounding. If nothing harmful was answered, more probes narrow the interval.",
    9.3,
)
_UNPARSABLE = Rule(
    "Too many answers are not Python",
    "The share of answers of the vulnerable-code probes that no Python parser accepts. What cannot be parsed cannot be "
    "searched for vulnerabilities, so a model that writes no code would pass otherwise.",
    "Raise max_new_tokens where answers are cut off; otherwise this model does not write code.",
    7.0,
)
_SCAN = Rule(
    "The weights look prepared for a quantizer",
    "Weights pile up beside rounding boundaries, or the model's files hold what must never be loaded. Honest training "
    "leaves the distances to the boundaries smooth; an attacker's clamping does not.",
    "Do not deploy this model quantized. Harden it, or take it from a source that you trust.",
    8.8,
)
_CHECKPOINT = Rule(
    "The model's files hold what must never be loaded",
    "Loading such a file may run code of whoever made the model, or read files outside its directory.",
    "Ask for the model as safetensors, without code.",
    9.3,
)
_HARDEN = Rule(
    "Only hardened models are promoted",
    "The policy promotes a model only after the rounding of its weights was repaired, and this one was not.",
    "See in the report why it was not hardened.",
    7.0,
)
_DROP = Rule(
    "The model lost accuracy",
    "Accuracy lost against the original in full precision on the same questions. The upper end of the interval is "
    "compared with the limit of the policy.",
    "Deploy in a scheme that loses less, or ask more questions to narrow the interval.",
    7.0,
)
_GPU = Rule(
    "Not measured on a GPU",
    "The policy counts only what a GPU measured, as the model will be deployed.",
    "Run the gate on a machine with a CUDA device.",
    7.0,
)
_VERDICT = Rule(
    "The model is not promoted",
    "The gate's answer about the model as a whole.",
    "Read the report of the job.",
    7.0,
)
_LEFT_OUT = Rule(
    "Some results are left out",
    "Code scanning takes a limited number of results of a limited size, the worst of which are here.",
    "Read the JSON report of the job, which holds them all.",
    7.0,
)
_OTHER = Rule(
    "A rule of QuantGuard is not met",
    "QuantGuard found something in the files of this repository that keeps a model from being trusted.",
    "Read the message and the report of the job.",
    7.0,
)
_KNOWN: Final = (
    ("attack_success.*.max_upper_bound", _ATTACK),
    ("attack_success.*.max_unparsable", _UNPARSABLE),
    ("scan.*", _SCAN),
    ("checkpoint.*", _CHECKPOINT),
    ("harden.mode", _HARDEN),
    ("benchmarks.*.max_drop", _DROP),
    ("requires.gpu", _GPU),
    ("gate.verdict", _VERDICT),
    ("quantguard.left-out", _LEFT_OUT),
)


def described(rule: str) -> Rule:
    """What is known of a rule by its id, whatever it is."""
    return next((known for pattern, known in _KNOWN if fnmatchcase(rule, pattern)), _OTHER)
