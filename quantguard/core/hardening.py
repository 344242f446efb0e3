"""What a repair did, in figures."""

from __future__ import annotations

from dataclasses import dataclass

from quantguard.core.scheme import Scheme


@dataclass(frozen=True, slots=True)
class CalibrationUsed:
    """Which prompts a method went by."""

    source: str  # neutral/VERSION, self/SEED, the path of a file; or "given", of a caller's own
    count: int  # of prompts
    digest: str  # sha256:HEX over them, in order


@dataclass(frozen=True, slots=True)
class MovedPositions:
    """Where in their cells the weights of one layer lay before a repair, and where they lie after it.

    Counts are by POSITION_BINS bins, as the scan's (`core.layer`): from the lower boundary over the level, in the
    middle, to the upper. Weights that decide a scale are left out: they never move.
    """

    layer: str  # name of the tensor in the files, attacker-controlled text
    scheme: Scheme
    before: tuple[int, ...]
    after: tuple[int, ...]
    flipped_before: tuple[int, ...]  # those among `before` whose rounding was changed
    flipped_after: tuple[int, ...]  # the same weights among `after`, each in its new cell

    @property
    def weights(self) -> int:
        return sum(self.before)

    @property
    def flipped(self) -> int:
        return sum(self.flipped_before)

    @property
    def share(self) -> float:
        """Of the weights whose rounding was changed, 0..1."""
        return self.flipped / self.weights if self.weights else 0.0


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
    calibration: CalibrationUsed | None = None  # None: the method reads no text
    unchanged: tuple[str, ...] = ()  # quantized layers, by the names in the files, none of whose roundings was changed
    outliers: tuple[str, ...] = ()  # of those, and of the others, with a weight in each group that drowns the rest
    positions: tuple[MovedPositions, ...] = ()  # of the layer with the most changed roundings, by scheme; or of none
