"""What a person has allowed although the policy forbids it: one rule, for one set of bytes, for a while."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

NO_SCHEME: Final = "none"
"""The scheme of a waiver whose rule is about none: a file, a tensor in a format that is no scheme, harden.mode."""


@dataclass(frozen=True, slots=True)
class Waiver:
    rule: str  # as a reason names it, e.g. attack_success.content_injection.max_upper_bound; or a finding's
    model_digest: str  # sha256:HEX of the only bytes that it is for
    scheme: str  # as a reason says where, e.g. nf4; NO_SCHEME where that is no scheme
    reason: str  # why it is allowed, in words
    approver: str  # who allowed it
    expires: str  # ISO date: the last day, in UTC, on which it is in force


class WaiverState(Enum):
    IN_FORCE = "in force"  # covers at least one reason
    UNUSED = "unused"  # would be in force, but covers nothing
    EXPIRED = "expired"
    REFUSED = "refused"  # the policy does not accept it: for too long, or by somebody who may not


@dataclass(frozen=True, slots=True)
class AppliedWaiver:
    """What became of one waiver when a policy judged the bytes that it names."""

    waiver: Waiver
    state: WaiverState
    days_left: int  # after today; negative where it has expired
    note: str = ""  # why it is not in force, in words; empty where it is
