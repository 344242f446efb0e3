"""What a repair did, in figures."""

from __future__ import annotations

from dataclasses import dataclass

from quantguard.core.scheme import Scheme


@dataclass(frozen=True, slots=True)
class HardeningSummary:
    """One run of a hardening method on one model."""

    method: str  # its plug-in name, e.g. quantguard
    schemes: tuple[Scheme, ...]
    steps: int  # optimizer steps taken
    flipped_share: tuple[tuple[Scheme, float], ...]  # share of linear weights whose rounding was changed, 0..1
    seconds: float
    losses: tuple[tuple[str, float], ...] = ()  # (term, value at the last step), in the order of the method
    untouched: tuple[str, ...] = ()  # matrices that the quantizer leaves alone, by their names in the files: as stored
