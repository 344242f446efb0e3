"""What a reader is told of rules about waivers."""

from __future__ import annotations

from typing import Final

from quantguard.report.rule import Rule

_SOURCE: Final = "This product's own (docs/waivers.md)."

WAIVER_RULES: Final = {
    "waiver.expired": Rule(
        "A waiver has expired",
        "What it allowed is not allowed any more, and the model was judged as if it were not there.",
        "Remove it from the file. If it is still needed, have it approved again, with another date.",
        7.0,
        _SOURCE,
        "None.",
    ),
    "waiver.refused": Rule(
        "The policy does not accept a waiver",
        "It lasts for longer than the policy lets one last, or was approved by somebody who may not.",
        "Let it expire sooner, or have it approved by somebody who may; the message names them.",
        7.0,
        _SOURCE,
        "None.",
    ),
    "waiver.unused": Rule(
        "A waiver covers nothing",
        "It is for these bytes and in force, and the rule that it names is met, or could not be measured, or is "
        "violated under another scheme only. It would hide what it was not meant for.",
        "Remove it from the file, or name the rule and scheme that a report shows.",
        7.0,
        _SOURCE,
        "A rule that is met in one run and not in another.",
    ),
    "waiver.elsewhere": Rule(
        "Some waivers are for other bytes",
        "The file of waivers names other model digests too. One that was meant for this model would name its digest.",
        "Nothing, unless a digest is misspelt: `quantguard waivers check` lists them all.",
        7.0,
        _SOURCE,
        "A file that serves several models.",
    ),
}
