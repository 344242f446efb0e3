"""From what was measured to what is said: p-values corrected over everything that was looked at, findings in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from scipy import stats

from quantguard.core.finding import Finding, Severity
from quantguard.core.layer import ALL_WEIGHTS, LayerScan
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.outlier import ALONE, GROUP
from quantguard.scan.examine import SUSPICIOUS, Examined, Kind
from quantguard.scan.siblings import Member, odd_ones
from quantguard.scan.survey import Survey, Weight

HISTOGRAMS: Final = 12  # worst layers that keep theirs


@dataclass(frozen=True, slots=True)
class Judged:
    """One weight under one grid, and what it is called."""

    name: str
    examined: Examined
    p_value: float  # corrected
    kind: Kind

    @property
    def suspicious(self) -> bool:
        return self.kind in SUSPICIOUS

    @property
    def share(self) -> float:
        """Of the weights that are out of place, or on a level; 0..1."""
        if self.kind is Kind.ON_GRID:
            return self.examined.on_level
        return self.examined.atoms.share if self.kind is Kind.ATOMS else self.examined.rise.share

    @property
    def distance(self) -> float:
        """Of those from the nearest boundary, 0..0.5 of the cell."""
        if self.kind in (Kind.ON_GRID, Kind.NEAR_GRID, Kind.ATOMS):
            return 0.5
        return 0.0 if self.kind is Kind.CROWDED else (self.examined.rise.begin + self.examined.rise.end) / 2


def judge(survey: Survey) -> tuple[Judged, ...]:
    """Every weight under every grid, all of them together last.

    Benjamini and Yekutieli's correction: the grids' tests on one tensor depend on each other.
    """
    together = survey.together()
    weights = [*survey.weights, *([together] if together else [])]
    flat = [(weight.name, examined) for weight in weights for examined in weight.examined]
    if not flat:
        return ()
    corrected = stats.false_discovery_control([examined.p_value for _, examined in flat], method="by")
    return tuple(
        Judged(name, examined, float(p), examined.kind(float(p)))
        for (name, examined), p in zip(flat, corrected, strict=True)
    )


def findings(survey: Survey, rows: Sequence[Judged]) -> Iterator[Finding]:
    """In no order. Of all weights together only what no single one shows."""
    shown = {row.examined.grid for row in rows if row.suspicious and row.name != ALL_WEIGHTS}
    for row in rows:
        if row.kind is Kind.CLEAN or (row.name == ALL_WEIGHTS and (row.examined.grid in shown or not row.suspicious)):
            continue
        yield _positions(row)
    yield from (_outliers(weight) for weight in survey.weights if weight.outliers.suspicious)
    on_grid = {row.name for row in rows if row.kind in (Kind.ON_GRID, Kind.NEAR_GRID)}
    yield from (_discrete(weight) for weight in survey.weights if weight.discrete and weight.name not in on_grid)
    members = [Member(row.name, row.examined.grid, row.examined.histogram) for row in rows if _comparable(row)]
    for odd in odd_ones(members):
        yield Finding(
            rule="scan.sibling",
            severity=Severity.MEDIUM,
            where=odd.member.name,
            message=(
                f"{odd.displaced:.1%} of the weights lie elsewhere in their {odd.member.grid} cells than a smooth"
                f" density has them, {odd.apart:.0f} deviations more than in its {odd.siblings} siblings"
            ),
            scheme=_scheme(odd.member.grid),
            grid=odd.member.grid,
            effect=odd.apart,
            share=odd.displaced,
        )


def layers(rows: Sequence[Judged]) -> tuple[LayerScan, ...]:
    """All rows, worst first; the first ones with their histograms."""
    ordered = sorted(
        rows, key=lambda row: (-row.suspicious, -row.share if row.suspicious else 0.0, -row.examined.strength)
    )
    return tuple(
        LayerScan(
            name=row.name,
            grid=row.examined.grid,
            weights=row.examined.weights,
            share=min(1.0, max(0.0, row.share)),
            distance=row.distance,
            p_value=row.p_value,
            suspicious=row.suspicious,
            histogram=row.examined.histogram if place < HISTOGRAMS else None,
        )
        for place, row in enumerate(ordered)
    )


def _comparable(row: Judged) -> bool:
    """Alarms speak for themselves, and what lies on a grid is no measure for what does not."""
    return row.name != ALL_WEIGHTS and row.kind in (Kind.CLEAN, Kind.CROWDED) and _scheme(row.examined.grid) is not None


def _scheme(grid: str) -> Scheme | None:
    """None for the grids of other quantizers."""
    return next((scheme for scheme in ROUNDINGS if scheme.value.upper() == grid), None)


def _positions(row: Judged) -> Finding:
    rule, severity = _rule(row.kind)
    return Finding(
        rule=rule,
        severity=severity,
        where=row.name,
        message=_message(row),
        scheme=_scheme(row.examined.grid),
        grid=row.examined.grid,
        effect=row.examined.atoms.ratio if row.kind is Kind.ATOMS else row.examined.rise.ratio,
        share=min(1.0, max(0.0, row.share)),
        p_value=row.p_value if row.suspicious else None,
    )


def _rule(kind: Kind) -> tuple[str, Severity]:
    match kind:
        case Kind.PILE:
            return "scan.boundary", Severity.HIGH
        case Kind.DEPLETED:
            return "scan.depleted", Severity.HIGH
        case Kind.ATOMS:
            return "scan.atoms", Severity.HIGH
        case Kind.CROWDED:
            return "scan.crowded", Severity.LOW
        case Kind.NEAR_GRID | Kind.ON_GRID:
            return "scan.on_grid", Severity.INFO
        case Kind.CLEAN:
            raise ValueError("a clean weight is no finding")
        case _:
            assert_never(kind)


def _message(row: Judged) -> str:
    one, grid, share = row.examined, row.examined.grid, row.share
    rise = one.rise
    match row.kind:
        case Kind.PILE:
            return (
                f"{share:.1%} of {one.weights} weights are piled up {row.distance:.1%} of a cell from the {grid}"
                f" rounding boundary, {rise.ratio:.1f} times as dense as nearer to it, as if prepared so that {grid}"
                " rounds them to chosen codes"
            )
        case Kind.DEPLETED:
            return (
                f"{share:.1%} of {one.weights} weights are in excess {rise.begin:.0%} to {rise.end:.0%} of a cell from"
                f" the {grid} rounding boundary, beside a strip that holds {rise.depleted:.0%} of what it should, as if"
                f" kept at a margin so that {grid} rounds them to chosen codes"
            )
        case Kind.ATOMS:
            return (
                f"{share:.1%} of {one.weights} weights lie exactly on {grid} levels, {one.atoms.ratio:.1f} times as"
                " dense as beside them, and the others do not: as if only those had been set for it"
            )
        case Kind.ON_GRID:
            return f"{share:.1%} of the weights lie on the {grid} grid already: it was quantized before"
        case Kind.NEAR_GRID:
            return (
                f"{one.near:.1f} times as many weights as expected lie near {grid} levels: it was quantized before and"
                " changed since"
            )
        case Kind.CROWDED:
            return (
                f"weights crowd about the {grid} rounding boundaries, {one.crowded:.1f} times as dense as further in:"
                f" trained with {grid} in the loop, or hardened; an attacker who takes no margin looks the same"
            )
        case Kind.CLEAN:
            raise ValueError("a clean weight has no message")
        case _:
            assert_never(row.kind)


def _outliers(weight: Weight) -> Finding:
    found = weight.outliers
    return Finding(
        rule="scan.outlier",
        severity=Severity.HIGH,
        where=weight.name,
        message=(
            f"in {found.alone:.0%} of {found.groups} groups of {GROUP} weights one is {ALONE:.0f} times the second"
            f" largest or more (median {found.ratio:.0f} times, kurtosis {found.kurtosis:.0f}): block-wise quantization"
            " flushes the others to zero, and no repair of roundings brings them back"
        ),
        effect=found.ratio,
        share=found.alone,
    )


def _discrete(weight: Weight) -> Finding:
    return Finding(
        rule="scan.on_grid",
        severity=Severity.INFO,
        where=weight.name,
        message=(
            "each block of 64 weights holds few different values: it was quantized before, so that its positions in"
            " other cells tell little"
        ),
    )
