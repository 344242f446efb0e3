"""What was measured on a layer, before it has a form: the finding it belongs to, its picture in words and in a line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quantguard.core.finding import Finding
from quantguard.core.layer import POSITION_BINS, LayerScan, PositionHistogram
from quantguard.core.remark import Remark
from quantguard.core.wording import percent
from quantguard.report.facts import ReportFacts
from quantguard.report.remarks import finding_remark
from quantguard.report.summary import p_value_text

RAMP: Final = "▁▂▃▄▅▆▇█"
ASCII_RAMP: Final = "_.-:=+*#"  # for a terminal that knows no other characters
COLUMNS: Final = 16  # of a line of these; four bins each
_ON_LEVEL: Final = 0.4999  # of the cell from either boundary: where its level is
_AT_BOUNDARY: Final = 0.02  # of the cell
_MORE, _FEWER = 1.25, 0.8  # times the expectation: what lies between is not worth words


@dataclass(frozen=True, slots=True)
class AtDistance:
    """The bins at one distance from the boundary, the one at either end of the cell together."""

    observed: int
    expected: float

    @property
    def ratio(self) -> float | None:
        """Observed to expected; None where nothing was expected."""
        return self.observed / self.expected if self.expected > 0 and math.isfinite(self.expected) else None


def at_distance(histogram: PositionHistogram, distance: float) -> AtDistance:
    """What lies `distance` (0..0.5 of the cell) from the boundary: in that bin, or in the one beside it that holds more
    over its expectation, because a pile at the border of two bins falls in either.
    """
    if math.isnan(distance):
        return AtDistance(0, 0.0)
    half = POSITION_BINS // 2
    middle = min(int(min(max(distance, 0.0), 0.5) * POSITION_BINS + 1e-9), half - 1)
    folded = [_folded(histogram, place) for place in range(max(middle - 1, 0), min(middle + 2, half))]
    return max(folded, key=lambda bins: (bins.observed - bins.expected) / math.sqrt(max(bins.expected, 1.0)))


def _folded(histogram: PositionHistogram, place: int) -> AtDistance:
    seen, due = histogram.observed, histogram.expected
    return AtDistance(seen[place] + seen[-1 - place], due[place] + due[-1 - place])


def caption(layer: LayerScan) -> str:
    """What the histogram of `layer` shows, in plain words. Our own words and figures only."""
    where = f"about {percent(layer.distance)} of a cell from the nearest boundary"
    where = "on the levels themselves" if layer.distance >= _ON_LEVEL else where
    ratio = at_distance(layer.histogram, layer.distance).ratio if layer.histogram is not None else None
    smooth = "what the smooth density of the same weights puts there"
    times = "where none are expected" if ratio is None else f"{ratio:.1f} times {smooth}"
    if not layer.suspicious:
        return _calm(layer, where, ratio)
    if ratio is not None and ratio < _MORE:
        return f"No single pile: an excess of {percent(layer.share)} of the weights is spread {where}.{_strip(layer)}"
    return f"An excess of {percent(layer.share)} of the weights lies {where}: {times}.{_strip(layer)}"


def _calm(layer: LayerScan, where: str, ratio: float | None) -> str:
    """What is no alarm may be seen all the same: a quantizer that was there before, or in training."""
    if ratio is not None and ratio >= _MORE and layer.distance >= _ON_LEVEL:
        lie = f"{ratio:.1f} times as many weights as expected lie on the levels"
        return f"Not suspicious: {lie}, as in a model that was quantized before."
    if ratio is not None and ratio >= _MORE and layer.distance <= 0:
        crowd = f"the weights crowd about the boundaries, {ratio:.1f} times as many as expected"
        return f"Not suspicious: {crowd}, as in a model that was trained with this quantizer."
    p = p_value_text(layer.p_value)
    return f"Nothing stands out: the largest excess is {percent(layer.share)} of the weights, {where} ({p})."


def _strip(layer: LayerScan) -> str:
    """What there is to say of the boundary itself where the excess is further in: a margin that was kept empties it."""
    if layer.histogram is None or layer.distance <= _AT_BOUNDARY:
        return ""
    ratio = _folded(layer.histogram, 0).ratio
    emptied = ratio is not None and ratio < _FEWER
    return f" At the boundary itself lie {ratio:.1f} times as many as expected." if emptied else ""


def sparkline(histogram: PositionHistogram, ramp: str = RAMP) -> str:
    """COLUMNS characters over the cell from boundary to boundary, each as high as the highest of its bins."""
    width = POSITION_BINS // COLUMNS
    heights = [max(histogram.observed[n : n + width]) for n in range(0, POSITION_BINS, width)]
    top = max(heights)
    return "".join(ramp[round(height / top * (len(ramp) - 1)) if top else 0] for height in heights)


def layer_of(finding: Finding, layers: Iterable[LayerScan]) -> LayerScan | None:
    """The layer that a finding of the scan is about; where it names no grid, the worst under its name."""
    grid = finding.grid or ("" if finding.scheme is None else finding.scheme.value.upper())
    return next((layer for layer in layers if layer.name == finding.where and grid in ("", layer.grid)), None)


def measured(facts: ReportFacts) -> Mapping[Remark, Mapping[str, Any]]:
    """The figures behind each finding, as JSON of finite numbers, by its remark; with the layer's histogram if kept."""
    by_name: dict[str, list[LayerScan]] = {}
    for layer in facts.layers:
        by_name.setdefault(layer.name, []).append(layer)
    figures = {
        finding_remark(facts.model, finding): _figures(finding, layer_of(finding, by_name.get(finding.where, ())))
        for finding in facts.findings or ()
    }
    return {remark: told for remark, told in figures.items() if told}


def _figures(finding: Finding, layer: LayerScan | None) -> Mapping[str, Any]:
    figures: dict[str, Any] = {"effect": finding.effect, "share": finding.share, "pValue": finding.p_value}
    if layer is not None:
        figures |= {"grid": layer.grid, "distance": layer.distance, "weights": layer.weights}
        figures |= {"histogram": _histogram(layer.histogram)} if layer.histogram is not None else {}
    return {name: value for name, value in figures.items() if _tellable(value)}


def _histogram(histogram: PositionHistogram) -> Mapping[str, Sequence[float]] | None:
    if not all(map(math.isfinite, histogram.expected)):
        return None
    # Three digits behind the point are finer than any count, and keep the file small.
    return {"observed": histogram.observed, "expected": tuple(round(value, 3) for value in histogram.expected)}


def _tellable(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
