"""ROC and power curves as SVG, written by hand: no library, readable on light and on dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """<style>
svg { background: #fff; font: 13px system-ui, sans-serif; fill: #1b1f24 }
.axis { stroke: #57606a; fill: none } .grid { stroke: #d0d7de; fill: none } .line { fill: none; stroke-width: 2 }
.limit { stroke: #57606a; stroke-dasharray: 5 4; fill: none } .small { font-size: 11px } .head { font-weight: 600 }
.c0 { stroke: #0969da } .c1 { stroke: #bc4c00 } .c2 { stroke: #1a7f37 } .c3 { stroke: #8250df } .c4 { stroke: #57606a }
.d0 { fill: #0969da } .d1 { fill: #bc4c00 } .d2 { fill: #1a7f37 } .d3 { fill: #8250df } .d4 { fill: #57606a }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; fill: #e6edf3 } .axis, .limit { stroke: #8d96a0 } .grid { stroke: #30363d }
.c0 { stroke: #58a6ff } .c1 { stroke: #f0883e } .c2 { stroke: #3fb950 } .c3 { stroke: #bc8cff } .c4 { stroke: #8d96a0 }
.d0 { fill: #58a6ff } .d1 { fill: #f0883e } .d2 { fill: #3fb950 } .d3 { fill: #bc8cff } .d4 { fill: #8d96a0 } }
</style>"""


@dataclass(frozen=True, slots=True)
class Axis:
    low: float
    high: float
    ticks: tuple[float, ...]
    title: str
    logarithmic: bool = False
    unit: str = ""

    def place(self, value: float) -> float:
        """0..1 along the axis; values beyond it lie at its end."""
        inside = min(max(value, self.low), self.high)
        if not self.logarithmic:
            return (inside - self.low) / (self.high - self.low)
        return math.log(inside / self.low) / math.log(self.high / self.low)


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    points: tuple[tuple[float, float], ...]
    colour: int  # 0..4
    dots: bool = False  # dots, not a line


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    limit: float | None = None  # a dashed line at this y
    rows: tuple[str, ...] = ()  # names at y = 0, 1, .. instead of ticks


_WIDE, _HIGH = 300.0, 250.0  # of the plot in a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 18.0, 40.0, 74.0


def picture(title: str, panels: Sequence[Panel], columns: int) -> str:
    """Panels side by side, `columns` in a row; each has its own legend below."""
    width, height = _LEFT + _WIDE + _RIGHT, _TOP + _HIGH + _BOTTOM
    rows = -(-len(panels) // columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * columns:g} {height * rows:g}" role="img">',
        f"<title>{escape(title)}</title>",
        _STYLE,
    ]
    for number, panel in enumerate(panels):
        x, y = number % columns * width + _LEFT, number // columns * height + _TOP
        parts += [f'<g transform="translate({x:g} {y:g})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    made = [f'<text class="head" x="0" y="-14">{escape(panel.title)}</text>']
    for tick in panel.x.ticks:
        x = panel.x.place(tick) * _WIDE
        made.append(f'<path class="grid" d="M{x:.1f} 0V{_HIGH:g}"/>')
        made.append(_text(x, _HIGH + 16, f"{tick:g}{panel.x.unit}", "middle"))
    for row, name in enumerate(panel.rows):
        made.append(_text(-6, _HIGH - panel.y.place(row) * _HIGH + 4, name, "end"))
    for tick in panel.y.ticks:
        y = _HIGH - panel.y.place(tick) * _HIGH
        made.append(f'<path class="grid" d="M0 {y:.1f}H{_WIDE:g}"/>')
        made.append(_text(-6, y + 4, f"{tick:g}{panel.y.unit}", "end"))
    if panel.limit is not None:
        if panel.rows:
            x = panel.x.place(panel.limit) * _WIDE
            made.append(f'<path class="limit" d="M{x:.1f} 0V{_HIGH:g}"/>')
        else:
            y = _HIGH - panel.y.place(panel.limit) * _HIGH
            made.append(f'<path class="limit" d="M0 {y:.1f}H{_WIDE:g}"/>')
    made.append(f'<path class="axis" d="M0 0V{_HIGH:g}H{_WIDE:g}"/>')
    made.append(_text(_WIDE / 2, _HIGH + 34, panel.x.title, "middle"))
    if panel.y.title:
        made.append(
            f'<text class="small" text-anchor="middle" transform="translate(-46 {_HIGH / 2:g}) rotate(-90)">'
            f"{escape(panel.y.title)}</text>"
        )
    for series in panel.series:
        made += _drawn(series, panel)
    return made + _legend(panel.series)


def _drawn(series: Series, panel: Panel) -> list[str]:
    places = [(panel.x.place(x) * _WIDE, _HIGH - panel.y.place(y) * _HIGH) for x, y in series.points]
    if series.dots:
        return [f'<circle class="d{series.colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>' for x, y in places]
    return [f'<path class="line c{series.colour}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>']


def _legend(series: Sequence[Series]) -> list[str]:
    made, x = [], 0.0
    for one in series:
        if one.name:
            made.append(f'<rect class="d{one.colour}" x="{x:g}" y="{_HIGH + 47:g}" width="12" height="4"/>')
            made.append(_text(x + 16, _HIGH + 53, one.name, "start"))
            x += 30 + 6.2 * len(one.name)
    return made


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text class="small" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
