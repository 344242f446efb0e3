"""Scan a checkpoint for weights prepared for a quantizer: tensors on disk in, findings out. Never builds the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scipy import stats

from quantguard.checkpoint.files import quote
from quantguard.checkpoint.layout import Checkpoint, TensorEntry, is_stored_transposed, linear_weights, open_checkpoint
from quantguard.checkpoint.tensors import require_finite, stream_tensors
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import CheckpointError
from quantguard.core.finding import Finding, Severity
from quantguard.core.progress import Progress, silent
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.scan.boundary import TESTED_BINS, BoundaryTest, boundary_test

SIGNIFICANCE: Final = 1e-6  # corrected p-value below which a pile is not chance
ENRICHMENT: Final = 1.5  # a bin this many times its background matters, however large the tensor
SHARE: Final = 0.01  # of the weights that must be in piles
_TESTABLE: Final = frozenset({"F32", "F16", "BF16"})
UNEVEN: Final = 2.0  # times these thresholds for a tensor on the INT8 grid (honest ones: 1.55, share 1.04 %)
ON_GRID: Final = 0.95  # of the weights on a level: the tensor was quantized and dequantized


@dataclass(frozen=True, slots=True)
class Scan:
    findings: tuple[Finding, ...]  # worst first
    tensors: int  # linear weights tested
    weights: int  # elements in them


@dataclass(frozen=True, slots=True)
class _Tested:
    entry: TensorEntry
    scheme: Scheme
    test: BoundaryTest


def scan(directory: Path, *, device: str = "cpu", progress: Progress = silent) -> Scan:
    """Every linear weight on all three grids, one tensor in memory at a time, and the files that must not be there.

    Raises:
        CheckpointError: it cannot be read, holds NaN or infinity, or has no linear weight. Where forbidden files were
            found, they are returned instead and the weights are not opened.
    """
    unsafe = tuple(f for f in unsafe_files(directory) if f.severity.at_least(Severity.HIGH))
    if unsafe:
        return Scan(_worst_first(unsafe), 0, 0)
    checkpoint = open_checkpoint(directory)
    linear = frozenset(entry.name for entry in linear_weights(checkpoint))
    if not linear:
        raise CheckpointError(
            "no linear weight to scan", path=directory, remedy="is this a language model's directory?"
        )
    _require_testable(checkpoint)
    tested: list[_Tested] = []
    elements = 0
    for done, (entry, tensor) in enumerate(stream_tensors(checkpoint), 1):
        require_finite(entry, tensor)
        if entry.name in linear:
            elements += tensor.numel()
            weight = tensor.T if is_stored_transposed(checkpoint, entry) else tensor
            weight = weight.to(device).contiguous()  # (out, in), as the quantizer sees it
            tested += [_Tested(entry, s, boundary_test(grid_for(s), weight)) for s in Scheme]
        progress("scan", done, len(checkpoint.tensors), entry.name)
    findings = _findings(tested) + unsafe_files(directory)
    return Scan(_worst_first(findings), len(linear), elements)


def _require_testable(checkpoint: Checkpoint) -> None:
    """Loaders cast other types to the model's own, after which they are weights as any other, but never tested ones."""
    for entry in checkpoint.tensors:
        matrix = len(entry.shape) == 2 and min(entry.shape) > 1
        if matrix and entry.name.endswith(".weight") and entry.dtype not in _TESTABLE:
            raise CheckpointError(
                f"{quote(entry.name)} is {entry.dtype}, which no grid is defined for",
                path=checkpoint.root,
                remedy="store weights as float32, float16 or bfloat16",
            )


def _findings(tested: Sequence[_Tested]) -> tuple[Finding, ...]:
    on_grid = [t for t in tested if t.test.on_grid >= ON_GRID]
    noted = tuple(_already_quantized(t) for t in on_grid)
    # The 16 levels of a dequantized 4-bit tensor are atoms that may lie beside another grid's boundaries. The 255 of
    # INT8 spread over 4-bit cells and only make bins uneven; and an attacker can snap weights to INT8 levels inside
    # their 4-bit cells, so that being there must not excuse a tensor.
    excused = {t.entry.name for t in on_grid if t.scheme is not Scheme.INT8}
    uneven = {t.entry.name for t in on_grid}
    open_tests = [t for t in tested if t.entry.name not in excused and t.test.weights]
    if not open_tests:
        return noted
    raw = [_p_value(t.test) for t in open_tests]
    corrected = stats.false_discovery_control(raw, method="by")  # the grids' tests on one tensor are not independent
    piled = tuple(
        _piled(t, float(p))
        for t, p in zip(open_tests, corrected, strict=True)
        if p < SIGNIFICANCE and _matters(t.test, factor=UNEVEN if t.entry.name in uneven else 1.0)
    )
    return piled + noted


def _matters(test: BoundaryTest, *, factor: float) -> bool:
    return test.enrichment >= factor * ENRICHMENT and test.share >= factor * SHARE


def _p_value(test: BoundaryTest) -> float:
    """Chance that the highest of the tested bins is this high, Poisson with Bonferroni over the bins."""
    observed, expected = test.statistic
    return min(1.0, TESTED_BINS * float(stats.poisson.sf(observed - 1, expected)))


def _piled(tested: _Tested, p_value: float) -> Finding:
    test, name = tested.test, tested.scheme.value.upper()
    return Finding(
        rule="scan.boundary",
        severity=Severity.HIGH,
        where=tested.entry.name,
        message=(
            f"{test.share:.1%} of {test.weights} weights are piled up {test.distance:.1%} of a cell from the {name}"
            f" rounding boundary ({test.enrichment:.1f} times the expected density), as if prepared so that {name}"
            " rounds them to chosen codes"
        ),
        scheme=tested.scheme,
        effect=test.enrichment,
        share=test.share,
        p_value=p_value,
    )


def _already_quantized(tested: _Tested) -> Finding:
    name = tested.scheme.value.upper()
    return Finding(
        rule="scan.on_grid",
        severity=Severity.INFO,
        where=tested.entry.name,
        message=f"{tested.test.on_grid:.1%} of the weights lie on the {name} grid already: it was quantized before",
        scheme=tested.scheme,
        share=tested.test.on_grid,
    )


def _worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda f: (-f.severity.rank, -(f.effect or 0.0), f.where)))
