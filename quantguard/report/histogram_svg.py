"""The positions of a layer's weights in their cells as a picture: bars, and a line where honest ones would be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from quantguard.core.layer import POSITION_BINS, LayerScan, PositionHistogram
from quantguard.report.layers import caption
from quantguard.report.markup import NOTHING, Html, element, join

_WIDTH: Final = 760.0
_HEIGHT: Final = 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 18.0, 30.0, 54.0  # of the frame, for labels
_BAR: Final = (_WIDTH - _LEFT - _RIGHT) / POSITION_BINS
_BASE: Final = _HEIGHT - _BOTTOM
_TICKS: Final = 4  # of the y axis, about
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
    step, top = scale(histogram)
    title, text = f"histogram-{number}-title", f"histogram-{number}-text"
    return element(
        "svg",
        element(
            "title", f"Positions of {layer.weights:,} weights of {layer.name} in their cells of {layer.grid}", id=title
        ),
        element(
            "desc", f"{caption(layer)} {POSITION_BINS} bars from the lower boundary of the cell to the upper.", id=text
        ),
        *_y_axis(step, top),
        *_bars(histogram, top),
        _expectation(histogram, top),
        *_boundaries(),
        *_x_axis(),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_labelledby=f"{title} {text}",
    )


def scale(histogram: PositionHistogram) -> tuple[float, float]:
    """Step between two ticks of the y axis (1, 2 or 5 times a power of ten), and the top: a whole number of steps."""
    expected = [value for value in histogram.expected if value < _ABSURD]
    highest = max(1.0, *map(float, histogram.observed), *expected)
    power = 10.0 ** math.floor(math.log10(highest / _TICKS))
    step = max(1.0, next(power * factor for factor in (1, 2, 5, 10) if power * factor * _TICKS >= highest))
    return step, step * math.ceil(highest / step)


def _x(position: float) -> float:
    """`position` in bins, 0..POSITION_BINS."""
    return _LEFT + position * _BAR


def _y(count: float, top: float) -> float:
    return _BASE - min(max(count / top, 0.0), 1.0) * (_BASE - _TOP)


def _bars(histogram: PositionHistogram, top: float) -> Iterator[Html]:
    for place, (observed, expected) in enumerate(zip(histogram.observed, histogram.expected, strict=True)):
        above = observed - expected > _SURE * math.sqrt(max(expected, 1.0)) and observed > _EXCESS * expected
        y = _y(observed, top)
        kind = "bar excess" if above else "bar"
        yield element(
            "rect",
            x=round(_x(place), 2),
            y=round(y, 2),
            width=round(_BAR - 0.8, 2),
            height=round(_BASE - y, 2),
            class_=kind,
        )


def _expectation(histogram: PositionHistogram, top: float) -> Html:
    """One step for each bin; a bin without expectation interrupts the line."""
    path, drawing = [], False
    for place, expected in enumerate(histogram.expected):
        if not math.isfinite(expected):
            drawing = False
            continue
        y = f"{_y(expected, top):.1f}"
        path.append(f"{'L' if drawing else 'M'}{_x(place):.1f} {y}H{_x(place + 1):.1f}")
        drawing = True
    return element("path", d="".join(path), class_="expected")


def _boundaries() -> Iterator[Html]:
    for position, anchor, word in ((0, "start", "lower boundary"), (POSITION_BINS, "end", "upper boundary")):
        x = _x(position)
        yield element("line", x1=x, x2=x, y1=_TOP - 8, y2=_BASE + 5, class_="boundary")
        yield element("text", word, x=x, y=_TOP - 14, text_anchor=anchor, class_="mark")


def _x_axis() -> Iterator[Html]:
    yield element("line", x1=_LEFT, x2=_x(POSITION_BINS), y1=_BASE, y2=_BASE, class_="axis")
    for quarter in range(5):
        x = _x(quarter * POSITION_BINS / 4)
        yield element("text", f"{quarter / 4:g}", x=x, y=_BASE + 20, text_anchor="middle", class_="tick")
    middle = _x(POSITION_BINS / 2)
    yield element("text", "position in the rounding cell", x=middle, y=_BASE + 42, text_anchor="middle", class_="label")


def _y_axis(step: float, top: float) -> Iterator[Html]:
    for tick in range(round(top / step) + 1):
        y = _y(tick * step, top)
        yield element("line", x1=_LEFT, x2=_x(POSITION_BINS), y1=y, y2=y, class_="grid")
        yield element("text", f"{tick * step:,.0f}", x=_LEFT - 8, y=y + 4, text_anchor="end", class_="tick")
    turned = f"translate(14 {(_TOP + _BASE) / 2:g}) rotate(-90)"
    yield element(
        "text", f"weights in 1 of {POSITION_BINS} parts", transform=turned, text_anchor="middle", class_="label"
    )


def legend() -> Html:
    """What bars and line mean, once for all figures of a page."""
    return element(
        "p",
        join(
            element("span", element("span", class_=f"key {kind}"), " ", words)
            for kind, words in (
                ("bar", "weights found there"),
                ("excess", "more than expected"),
                ("expected", "expected: the smooth density of the same weights"),
            )
        ),
        class_="legend",
    )
