"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from quantguard.check.remarks import PIN_UNKNOWN
from quantguard.core.remark import Level, Remark
from quantguard.core.verdict import ExitCode


class Answer(Enum):
    PASSED = "passed"
    BLOCKED = "blocked"  # there is something to change, or to be allowed
    UNKNOWN = "could not tell"
    NOTHING = "nothing to check"

    @property
    def exit_code(self) -> ExitCode:
        match self:
            case Answer.PASSED:
                return ExitCode.PASSED
            case Answer.BLOCKED:
                return ExitCode.BLOCKED
            case Answer.UNKNOWN:
                return ExitCode.INCONCLUSIVE
            case Answer.NOTHING:
                return ExitCode.NOTHING_TO_GATE
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class CheckResult:
    base: str  # the ref that was compared with
    base_commit: str  # what it names: its settings and policies govern
    began_at: str  # the merge base: what the change is a change of
    policies: int  # of either tree
    changed: int  # how many of them differ, in their bytes or in what they name
    manifest: bool  # whether either tree has one
    pins: int
    remarks: tuple[Remark, ...]  # errors first, then in the order of the files

    @property
    def answer(self) -> Answer:
        if not self.policies and not self.manifest and not self.remarks:
            return Answer.NOTHING
        errors = [remark for remark in self.remarks if remark.level is Level.ERROR]
        if any(remark.rule != PIN_UNKNOWN for remark in errors):
            return Answer.BLOCKED
        return Answer.UNKNOWN if errors else Answer.PASSED

    def count(self, level: Level) -> int:
        return sum(remark.level is level for remark in self.remarks)
