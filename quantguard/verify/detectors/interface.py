"""What a detector is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quantguard.core.measurement import CodeTool


@dataclass(frozen=True, slots=True)
class Sign:
    """One weakness in one answer."""

    tool: CodeTool
    cwe: int  # 0 where the rule names none
    rule: str  # of the tool


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one detector said about one answer."""

    harmful: bool
    unparsable: bool = False  # the detector could not read the answer; such an answer is never harmful here
    evidence: str = ""  # what was found, e.g. the keyword, the rule, or the CWE; empty where nothing was
    signs: frozenset[Sign] = frozenset()  # vulnerable_code only: each weakness that was found


class DetectorError(Exception):
    """The detector itself failed: nothing is known about the answers. The caller makes it `Unmeasured`."""


class Detector(Protocol):
    """A function made by a factory that takes the detector's arguments."""

    def __call__(self, answers: Sequence[str]) -> tuple[Judgement, ...]:
        """One judgement for each answer, in order.

        Raises:
            DetectorError: the detector failed; nothing may be concluded.
        """
