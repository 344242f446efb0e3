"""The positions of a layer's weights in their cells as a picture: bars, and a line where honest ones would be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from quantguard.core.layer import POSITION_BINS, LayerScan, PositionHistogram
from quantguard.report.frame_svg import Frame, bar, boundaries, grid_lines, ticks, x_axis, y_axis
from quantguard.report.layers import caption
from quantguard.report.markup import NOTHING, Html, element

_WIDTH: Final = 760.0
_HEIGHT: Final = 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 18.0, 30.0, 54.0  # of the frame, for labels
_ABSURD: Final = 1e18  # weights: no expectation makes an axis that high
_EXCESS: Final = 1.25  # times the expectation,
_SURE: Final = 5.0  # and standard deviations of a count above it: then a bar is marked


def histogram_figure(layer: LayerScan, number: int) -> Html:
    """A figure with its caption; empty where the histogram of `layer` was not kept.

    `number` keeps the ids of the figures of one page apart.
    """
    if layer.histogram is None:
        return NOTHING
    return element(
        "figure",
        element(
            "figcaption",
            element("strong", element("code", layer.name), ", ", layer.grid),
            element("span", caption(layer), class_="shows"),
        ),
        _picture(layer, layer.histogram, number),
        class_="suspicious" if layer.suspicious else None,
    )


def _picture(layer: LayerScan, histogram: PositionHistogram, number: int) -> Html:
    frame = Frame(_LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM, *scale(histogram))
    title, text = f"histogram-{number}-title", f"histogram-{number}-text"
    return element(
        "svg",
        element(
            "title", f"Positions of {layer.weights:,} weights of {layer.name} in their cells of {layer.grid}", id=title
        ),
        element(
            "desc", f"{caption(layer)} {POSITION_BINS} bars from the lower boundary of the cell to the upper.", id=text
        ),
        *grid_lines(frame),
        *y_axis(frame),
        *_bars(histogram, frame),
        _expectation(histogram, frame),
        *boundaries(frame, "lower boundary", "upper boundary"),
        *x_axis(frame),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_labelledby=f"{title} {text}",
    )


def scale(histogram: PositionHistogram) -> tuple[float, float]:
    """Step between two ticks of the y axis, and its top, which holds every count and expectation."""
    expected = [value for value in histogram.expected if value < _ABSURD]
    return ticks(max(1.0, *map(float, histogram.observed), *expected))


def _bars(histogram: PositionHistogram, frame: Frame) -> Iterator[Html]:
    for place, (observed, expected) in enumerate(zip(histogram.observed, histogram.expected, strict=True)):
        above = observed - expected > _SURE * math.sqrt(max(expected, 1.0)) and observed > _EXCESS * expected
        yield bar(frame, place, observed, "bar excess" if above else "bar")


def _expectation(histogram: PositionHistogram, frame: Frame) -> Html:
    """One step for each bin; a bin without expectation interrupts the line."""
    path, drawing = [], False
    for place, expected in enumerate(histogram.expected):
        if not math.isfinite(expected):
            drawing = False
            continue
        y = f"{frame.y(expected):.1f}"
        path.append(f"{'L' if drawing else 'M'}{frame.x(place):.1f} {y}H{frame.x(place + 1):.1f}")
        drawing = True
    return element("path", d="".join(path), class_="expected")


def legend() -> Html:
    """What bars and line mean, once for all figures of a page."""
    return keys(
        ("bar", "weights found there"),
        ("excess", "more than expected"),
        ("expected", "expected: the smooth density of the same weights"),
    )


def keys(*told: tuple[str, str]) -> Html:
    """A legend: the class of each mark, and its words."""
    items = (element("span", element("span", class_=f"key {kind}"), " ", words) for kind, words in told)
    return element("p", *items, class_="legend")
