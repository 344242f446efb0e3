"""What each rule of a check means and what to do about it, as code scanning shows it beside an alert."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from quantguard.check import remarks
from quantguard.report.rules import Rule

_NEXT_LOOSER: Final = (
    "Take the change back, or ask a maintainer to allow it: the check passes with `--allow-looser`, which a workflow "
    "gives when the pull request carries the label that only maintainers set."
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        remarks.INVALID: Rule(
            "Not a valid policy or manifest",
            "The gate reads policies strictly: with this file it judges nothing and exits with 4.",
            "Change what the message names; `quantguard policy validate FILE` checks it on your machine.",
            7.0,
        ),
        remarks.UNSAFE: Rule(
            "A path that is not followed",
            "A symbolic link, or a path that leads out of the repository, brings in what no reviewer of a change sees.",
            "Keep policies, what they name and pinned models as plain files in the repository.",
            8.0,
        ),
        remarks.LOOSER: Rule(
            "A limit became looser",
            "A model may be promoted that was not before this change, or less of it is looked at.",
            _NEXT_LOOSER,
            8.0,
        ),
        remarks.STRICTER: Rule("A limit became stricter", "Models that passed may be blocked.", "Nothing to do.", 2.0),
        remarks.DIFFERENT: Rule(
            "A policy became different",
            "Whether more or fewer models pass cannot be told from the two values.",
            "Read the change as you would read a looser limit.",
            5.0,
        ),
        remarks.NEW: Rule(
            "Nothing to compare with", "Its limits were never reviewed.", "Review every limit of this file.", 5.0
        ),
        remarks.MOVED: Rule(
            "A policy has another path",
            "Workflows and manifests name policies by their paths.",
            "Change the path wherever the policy is named.",
            5.0,
        ),
        remarks.PIN_POLICY: Rule(
            "No policy of the base branch judges the pin",
            "A pinned model is judged by the policy as the base branch has it: a change cannot bring its own judge.",
            "Merge the policy first, then the pin.",
            7.0,
        ),
        remarks.PIN_GONE: Rule(
            "The pinned model is not there",
            "Nothing is found under the name that the manifest pins.",
            "Pin a version that exists.",
            7.0,
        ),
        remarks.PIN_DIGEST: Rule(
            "The pinned model has other bytes",
            "The bytes that the gate judged, or those in the checkout, are not the ones of the digest.",
            "Find out who changed them before you change the digest.",
            9.0,
        ),
        remarks.PIN_VERDICT: Rule(
            "The gate did not promote the pinned model",
            "Its last verdict under the policy that judges the pin is not PROMOTE.",
            "Pin a version that was promoted.",
            9.0,
        ),
        remarks.PIN_UNGATED: Rule(
            "The pinned model was not judged",
            "Nothing says that the gate promoted these bytes under this policy as it is now.",
            "Run `quantguard gate` on it.",
            7.0,
        ),
        remarks.PIN_UNKNOWN: Rule(
            "The pinned model could not be looked up",
            "The registry did not answer, or may not be asked: that is no pass.",
            "Make the registry reachable from the runner, and run again.",
            7.0,
        ),
        remarks.PIN_EVIDENCE: Rule(
            "The evidence of the pinned model does not admit it",
            "The signed evidence in the version's tags is absent, forged, of something else, too old, or the policy of "
            "the base branch decides otherwise from it.",
            "Gate the version again, with a key that is trusted, or pin one that is admitted.",
            9.0,
        ),
        remarks.PIN_UNVERIFIED: Rule(
            "The evidence of pinned models was not verified",
            "Nothing says whose signatures count, so tags were believed that anybody may write who may tag a version.",
            "Name the public keys in the manifest, `keys: FILE`, or give --key FILE.",
            5.0,
        ),
        remarks.WAIVER_EXPIRED: Rule(
            "A waiver has expired",
            "The gate judges as if it were not there.",
            "Remove it, or have it approved again with another date.",
            7.0,
        ),
        remarks.WAIVER_REFUSED: Rule(
            "The policy does not accept a waiver",
            "The gate exits with 4 for this file: the waiver lasts too long, or was approved by somebody who may not.",
            "Let it expire sooner, or have it approved by somebody who may; the message names them.",
            8.0,
        ),
        remarks.WAIVER_SOON: Rule(
            "A waiver expires soon", "Models that pass by it will be blocked then.", "Repair the model before.", 2.0
        ),
    }
)
