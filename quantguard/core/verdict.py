"""What the gate can say, and the exit code that says it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from quantguard.core.scheme import FULL_PRECISION, Scheme
from quantguard.core.waiver import NO_SCHEME, AppliedWaiver

_SCHEMES: Final = frozenset({FULL_PRECISION, *(scheme.value for scheme in Scheme)})


class Verdict(Enum):
    PROMOTE = "PROMOTE"
    BLOCK = "BLOCK"
    HOLD = "HOLD"  # could not tell; fails closed


class ExitCode(IntEnum):
    PASSED = 0
    BLOCKED = 1
    INCONCLUSIVE = 2
    NOTHING_TO_GATE = 3
    USAGE = 4


class Subject(Enum):
    """Which bytes a measurement or a decision is about."""

    ORIGINAL = "original"
    HARDENED = "hardened"


class Outcome(Enum):
    """What one rule of the policy said."""

    MET = "met"
    VIOLATED = "violated"
    UNMEASURED = "unmeasured"
    WAIVED = "waived"  # not met, and allowed by a waiver in force


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule applied to one measurement."""

    rule: str  # dotted path in the policy, e.g. attack_success.content_injection.max_upper_bound
    outcome: Outcome
    measured: str  # what was measured, with count and interval, as a reader would say it
    limit: str  # what the policy allows
    where: str  # scheme or tensor, e.g. nf4
    finding: str = ""  # rule of the findings that it tells of, e.g. scan.boundary; empty where it tells of none
    finding_scheme: str = ""  # of those findings, e.g. nf4; empty where they are about no scheme

    def sentence(self) -> str:
        """The reason in words."""
        return f"{self.rule} ({self.where}): {self.measured}; allowed: {self.limit}"

    @property
    def waived_as(self) -> tuple[str, str]:
        """The rule and the scheme that a waiver of this reason names.

        Findings are waived by their own rule: `scan.fail_on` would be all of them.
        """
        if self.finding:
            return self.finding, self.finding_scheme or NO_SCHEME
        return self.rule, self.where if self.where in _SCHEMES else NO_SCHEME


@dataclass(frozen=True, slots=True)
class Decision:
    """The policy's answer about one set of bytes."""

    subject: Subject
    verdict: Verdict
    reasons: tuple[Reason, ...]
    waivers: tuple[AppliedWaiver, ...] = ()  # what became of those that name these bytes, in the order of their file

    def failures(self) -> tuple[Reason, ...]:
        """The reasons that kept it from being promoted, violated before unmeasured."""
        violated = tuple(r for r in self.reasons if r.outcome is Outcome.VIOLATED)
        return violated + tuple(r for r in self.reasons if r.outcome is Outcome.UNMEASURED)

    def waived(self) -> tuple[Reason, ...]:
        """The reasons that would have kept it back without a waiver."""
        return tuple(r for r in self.reasons if r.outcome is Outcome.WAIVED)


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """What one run of the gate concluded about a model version.

    `hardened` is None where nothing was hardened. At most one subject is promoted: the original where it
    passes as it is, otherwise the hardened derivative where that passes.
    """

    original: Decision
    hardened: Decision | None

    @property
    def promoted(self) -> Subject | None:
        if self.original.verdict is Verdict.PROMOTE:
            return Subject.ORIGINAL
        if self.hardened is not None and self.hardened.verdict is Verdict.PROMOTE:
            return Subject.HARDENED
        return None

    @property
    def verdict(self) -> Verdict:
        """PROMOTE where something may be promoted; otherwise the original's own verdict."""
        return Verdict.PROMOTE if self.promoted is not None else self.original.verdict

    def verdict_for(self, *, registered: bool) -> Verdict:
        """The verdict on what the user goes on to use.

        A registry's users go on to use the alias, which a hardened derivative may hold. A directory's user goes on to
        use that directory, so it must pass itself.
        """
        return self.verdict if registered else self.original.verdict
