"""A quantized checkpoint compared with the full-precision weights that it is said to be made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from quantguard.core.scheme import Scheme


class Answer(Enum):
    PROVED = "proved"  # nothing differs
    DIFFERS = "differs"
    UNTOLD = "could not tell"  # only what another device may have rounded the other way; fails closed


class Kind(Enum):
    """What differs."""

    CODES = "codes"  # quantized weights that are not the nearest rounding of the vetted ones
    EDGE = "edge"  # codes of weights so close to a boundary that devices disagree about them
    SCALES = "scales"  # absmax of blocks or rows, or their own quantization
    LEVELS = "level table"
    LAYOUT = "layout"  # block size, type, dtype or shape
    VALUES = "values"  # of a tensor that is not quantized
    CAST = "cast"  # converted to another dtype, with a loss, before it was quantized or stored
    MISSING = "missing"
    EXTRA = "extra"
    SETTINGS = "settings"  # config.json or generation_config.json
    FILE = "file"
    UNSAFE = "unsafe"  # what must not be in a model directory at all


@dataclass(frozen=True, slots=True)
class Difference:
    kind: Kind
    where: str  # tensor, or file relative to the artefact; attacker-controlled text
    message: str  # one sentence; may quote text from outside
    count: int = 0  # codes, scales or values that differ; 0 where that is not what differs
    of: int = 0  # of how many
    first: tuple[int, ...] = ()  # index of the first of them, by row and column as the quantizer takes the weight


@dataclass(frozen=True, slots=True)
class ArtifactProof:
    """What was compared, and everything that differs."""

    vetted: str  # directory, as the user named it
    vetted_digest: str  # sha256:HEX
    artifact: str  # directory, as the user named it
    artifact_digest: str  # sha256:HEX
    scheme: Scheme
    nested: bool  # double quantization: the scales are quantized too
    dtype: str  # that the artefact computes in, e.g. bfloat16; empty where its config.json names none
    quantized: int  # tensors, >= 0
    codes: int  # quantized weights in them, >= 0
    unquantized: int  # tensors compared value by value, >= 0
    cast: int  # tensors that are the vetted ones only once those are converted to `dtype`, with a loss; >= 0
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]  # what a reader should know and is no difference; one sentence each
    device: str  # that computed the rounding, e.g. cpu
    libraries: tuple[tuple[str, str], ...]  # (distribution, version)

    @property
    def answer(self) -> Answer:
        """PROVED only where nothing differs."""
        if not self.differences:
            return Answer.PROVED
        if all(difference.kind is Kind.EDGE for difference in self.differences):
            return Answer.UNTOLD
        return Answer.DIFFERS
