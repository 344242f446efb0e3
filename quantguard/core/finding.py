"""Something seen in the files of a model that a reader should know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from quantguard.core.scheme import Scheme


class Severity(Enum):
    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info to 4 for critical."""
        return list(Severity).index(self)

    def at_least(self, other: Severity) -> bool:
        return self.rank >= other.rank


@dataclass(frozen=True, slots=True)
class Finding:
    rule: str  # dotted id, e.g. scan.boundary or checkpoint.pickle
    severity: Severity
    where: str  # tensor name or file path relative to the model directory; attacker-controlled text
    message: str  # one sentence: what was seen where, and what it means
    scheme: Scheme | None = None
    effect: float | None = None  # effect size; for scan.boundary the observed / expected mass, >= 0
    share: float | None = None  # estimated share of the tensor's weights concerned, 0..1
    p_value: float | None = None  # corrected over all tensors and grids of the scan, 0..1
    grid: str = ""  # of the scan's own findings, as `LayerScan.grid` names it; schemes are not all of its grids
