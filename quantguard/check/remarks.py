"""The rules that a check remarks on. Every remark's `rule` is one of these."""

from __future__ import annotations

from typing import Final

INVALID: Final = "check.invalid"  # a policy or manifest that is none
UNSAFE: Final = "check.unsafe_path"  # a link, or a path out of the checkout
LOOSER: Final = "check.looser"
STRICTER: Final = "check.stricter"
DIFFERENT: Final = "check.different"
NEW: Final = "check.new"  # nothing to compare it with
MOVED: Final = "check.moved"
PIN_POLICY: Final = "check.pin_policy"  # no policy of the base branch judges it
PIN_GONE: Final = "check.pin_gone"
PIN_DIGEST: Final = "check.pin_digest"
PIN_VERDICT: Final = "check.pin_verdict"
PIN_UNGATED: Final = "check.pin_ungated"
PIN_UNKNOWN: Final = "check.pin_unknown"  # could not tell
PIN_EVIDENCE: Final = "check.pin_evidence"  # what was signed about it does not admit it
PIN_UNVERIFIED: Final = "check.pin_unverified"  # nothing says whose signatures count
WAIVER_EXPIRED: Final = "check.waiver_expired"
WAIVER_REFUSED: Final = "check.waiver_refused"  # the base branch's policy does not accept it
WAIVER_SOON: Final = "check.waiver_soon"  # expires within two weeks
