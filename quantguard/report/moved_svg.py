"""One layer before and after a repair: for each scheme a row of two pictures, and of both the same axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from quantguard.core.hardening import MovedPositions
from quantguard.core.layer import POSITION_BINS
from quantguard.core.wording import percent
from quantguard.report.frame_svg import Frame, bar, boundaries, grid_lines, ticks, x_axis, y_axis
from quantguard.report.histogram_svg import keys
from quantguard.report.markup import NOTHING, Html, element, join

_MOST: Final = 12  # rows; there are three schemes
_WIDTH: Final = 760.0
_HEIGHT: Final = 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 18.0, 48.0, 54.0  # of the frames, for labels
_GAP: Final = 34.0  # between the two
_EVEN: Final = 2 / POSITION_BINS  # share of the weights in the bins at both boundaries, were all bins alike

_HOW: Final = (
    "The layer in which most roundings were changed. An attack that moves weights and keeps their rounding leaves them "
    "beside the boundaries: look for tall bars at both ends on the left. The stronger colour marks the weights whose "
    "rounding was changed: on the left where they lay, on the right where they lie now, each in its new cell. A bar "
    "that is still tall there is no alarm: across the boundary is beside the boundary, too. Whether the behaviour is "
    "gone is measured, and not to be seen here."
)


def moved_figures(positions: Sequence[MovedPositions]) -> Html:
    """A figure for each scheme; empty where nothing was moved."""
    if not positions:
        return NOTHING
    marks = keys(("bar", "all weights of the layer"), ("moved", "those whose rounding was changed"))
    figures = (_figure(moved, number) for number, moved in enumerate(positions[:_MOST], 1))
    return join((element("p", _HOW), marks, *figures))


def moved_caption(moved: MovedPositions) -> str:
    """What was changed, and what became of the strips beside the boundaries. Our own words and figures only."""
    changed = f"{moved.flipped:,} of {moved.weights:,} roundings changed ({percent(moved.share)})."
    before, after, of_them = (_at_ends(counts) for counts in (moved.before, moved.after, moved.flipped_before))
    if not before:
        return changed
    shares = f"{percent(before / moved.weights)} of the weights before and {percent(after / moved.weights)} after"
    strips = f"In the outermost bar at either boundary lay {shares}; {percent(_EVEN)} would be even."
    return f"{changed} {strips} Of the {before:,} before, {of_them:,} now round to another level."


def _at_ends(counts: Sequence[int]) -> int:
    return counts[0] + counts[-1]


def _figure(moved: MovedPositions, number: int) -> Html:
    return element(
        "figure",
        element(
            "figcaption",
            element("strong", element("code", moved.layer), ", ", moved.scheme.value.upper()),
            element("span", moved_caption(moved), class_="shows"),
        ),
        _pictures(moved, number),
    )


def _pictures(moved: MovedPositions, number: int) -> Html:
    width = (_WIDTH - _LEFT - _GAP - _RIGHT) / 2
    axis = ticks(float(max(1, *moved.before, *moved.after)))
    first = Frame(_LEFT, _LEFT + width, _TOP, _HEIGHT - _BOTTOM, *axis)
    second = replace(first, left=first.right + _GAP, right=first.right + _GAP + width)
    title, text = f"moved-{number}-title", f"moved-{number}-text"
    cells = f"their cells of {moved.scheme.value.upper()}, before and after hardening"
    bars = f"Two times {POSITION_BINS} bars from the lower boundary of the cell to the upper, on the same axes."
    return element(
        "svg",
        element("title", f"Positions of {moved.weights:,} weights of {moved.layer} in {cells}", id=title),
        element("desc", f"{moved_caption(moved)} {bars}", id=text),
        *y_axis(first),
        *_panel(first, "before", moved.before, moved.flipped_before),
        *_panel(second, "after", moved.after, moved.flipped_after),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_labelledby=f"{title} {text}",
    )


def _panel(frame: Frame, name: str, counts: Sequence[int], flipped: Sequence[int]) -> Iterator[Html]:
    yield from grid_lines(frame)
    for place, (all_there, of_them) in enumerate(zip(counts, flipped, strict=True)):
        yield bar(frame, place, all_there, "bar")
        if of_them:
            yield bar(frame, place, of_them, "moved")
    middle = frame.x(POSITION_BINS / 2)
    yield element("line", x1=middle, x2=middle, y1=frame.top - 8, y2=frame.base, class_="level")
    yield element("text", "level", x=middle, y=frame.top - 14, text_anchor="middle", class_="mark")
    yield from boundaries(frame, "boundary", "boundary")
    yield element("text", name, x=middle, y=frame.top - 34, text_anchor="middle", class_="panel")
    yield from x_axis(frame)
