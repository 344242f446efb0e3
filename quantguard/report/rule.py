"""What a reader is told of a rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    short: str  # one sentence: what is wrong
    full: str  # what is measured, and why it matters
    remedy: str  # what to do next
    severity: float  # of an error, as CVSS counts: 7 (high) to 10 (critical)
    source: str = ""  # paper and section, advisory or documentation; empty where the rule is this product's own
    false_positives: str = ""  # what is harmless and looks the same
