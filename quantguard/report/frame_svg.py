"""The frame of a picture of positions: one rounding cell from boundary to boundary, and weights counted upwards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from quantguard.core.layer import POSITION_BINS
from quantguard.report.markup import Html, element

_TICKS: Final = 4  # of the y axis, about


@dataclass(frozen=True, slots=True)
class Frame:
    """Where counts are drawn. Lengths are in units of the picture, y downwards."""

    left: float
    right: float
    top: float
    base: float
    step: float  # weights between two ticks of the y axis
    highest: float  # weights at the top: a whole number of steps

    @property
    def bar(self) -> float:
        """Width of a bin."""
        return (self.right - self.left) / POSITION_BINS

    def x(self, position: float) -> float:
        """`position` in bins, 0..POSITION_BINS."""
        return self.left + position * self.bar

    def y(self, count: float) -> float:
        return self.base - min(max(count / self.highest, 0.0), 1.0) * (self.base - self.top)


def ticks(highest: float) -> tuple[float, float]:
    """Step between two ticks of the y axis (1, 2 or 5 times a power of ten), and the top: a whole number of steps."""
    power = 10.0 ** math.floor(math.log10(highest / _TICKS))
    step = max(1.0, next(power * factor for factor in (1, 2, 5, 10) if power * factor * _TICKS >= highest))
    return step, step * math.ceil(highest / step)


def bar(frame: Frame, place: int, count: float, kind: str) -> Html:
    y = frame.y(count)
    return element(
        "rect",
        x=round(frame.x(place), 2),
        y=round(y, 2),
        width=round(frame.bar - 0.8, 2),
        height=round(frame.base - y, 2),
        class_=kind,
    )


def boundaries(frame: Frame, lower: str, upper: str) -> Iterator[Html]:
    """Both ends of the cell, each with its word."""
    for position, anchor, word in ((0, "start", lower), (POSITION_BINS, "end", upper)):
        x = frame.x(position)
        yield element("line", x1=x, x2=x, y1=frame.top - 8, y2=frame.base + 5, class_="boundary")
        yield element("text", word, x=x, y=frame.top - 14, text_anchor=anchor, class_="mark")


def x_axis(frame: Frame) -> Iterator[Html]:
    yield element("line", x1=frame.left, x2=frame.right, y1=frame.base, y2=frame.base, class_="axis")
    for quarter in range(5):
        x = frame.x(quarter * POSITION_BINS / 4)
        yield element("text", f"{quarter / 4:g}", x=x, y=frame.base + 20, text_anchor="middle", class_="tick")
    middle, below = frame.x(POSITION_BINS / 2), frame.base + 42
    yield element("text", "position in the rounding cell", x=middle, y=below, text_anchor="middle", class_="label")


def grid_lines(frame: Frame) -> Iterator[Html]:
    """One at each tick of the y axis."""
    for tick in range(round(frame.highest / frame.step) + 1):
        y = frame.y(tick * frame.step)
        yield element("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="grid")


def y_axis(frame: Frame) -> Iterator[Html]:
    """The words of the y axis, left of the frame."""
    for tick in range(round(frame.highest / frame.step) + 1):
        count = tick * frame.step
        yield element("text", f"{count:,.0f}", x=frame.left - 8, y=frame.y(count) + 4, text_anchor="end", class_="tick")
    turned = f"translate(14 {(frame.top + frame.base) / 2:g}) rotate(-90)"
    yield element(
        "text", f"weights in 1 of {POSITION_BINS} parts", transform=turned, text_anchor="middle", class_="label"
    )
