"""Figures as pictures in monospaced text: a job summary shows no SVG. At most 100 columns wide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeGuard

from quantguard.core.measurement import Measurements, PairedDrop, Rate, Unmeasured
from quantguard.core.scheme import scheme_label
from quantguard.core.wording import interval, percent
from quantguard.report.text import fenced, visible

CELLS: Final = 48  # of a bar; the quarters of the axis are borders of cells
MOST_LINES: Final = 100  # of one picture
_NAME = 80  # characters of a benchmark's name
_INDENT = " " * 15
_REACHES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the axis of lost accuracy, to both sides
_LEGEND = "█ to the lower end of the interval, ▓ to the rate, ░ to the upper end, which must meet the limit"

Known = Rate | PairedDrop


@dataclass(frozen=True, slots=True)
class _Line:
    what: str  # scenario or benchmark: the head of the lines that belong together
    scheme: str
    subject: str
    value: Known | Unmeasured


def rates_plot(original: Measurements | None, hardened: Measurements | None) -> str:
    """Attack success as bars from 0 to 100 %, by scenario and scheme, the original above its hardened derivative.

    A code block; empty where no attack was measured.
    """
    lines = [
        _Line(attack.scenario.value, scheme_label(attack.scheme), measured.subject.value, attack.rate)
        for measured in (original, hardened)
        if measured is not None
        for attack in measured.attacks
    ]
    return _picture(lines, lambda value: f"│{bar(value)}│", _quarters(), (_LEGEND, ""))


def drops_plot(original: Measurements | None, hardened: Measurements | None) -> str:
    """Lost accuracy as points with their intervals, by benchmark and scheme, on one axis with zero in the middle.

    A code block; empty where no benchmark was asked.
    """
    lines = [
        _Line(benchmark.task, scheme_label(benchmark.scheme), measured.subject.value, benchmark.drop)
        for measured in (original, hardened)
        if measured is not None
        for benchmark in measured.benchmarks
    ]
    known = [line.value for line in lines if _drawable(line.value)]
    widest = max((max(abs(value.lower), abs(value.upper)) for value in known), default=0.0)
    reach = next((reach for reach in _REACHES if widest <= reach), 1.0)
    left, right = f"{100 * reach:.0f} % gained", f"{100 * reach:.0f} % lost"
    axis = left.ljust(CELLS // 2) + "0" + right.rjust(CELLS // 2)
    return _picture(lines, lambda value: point(value, reach) + " ", axis, ())


def _quarters() -> str:
    """0 % to 100 % below a bar and its frame, each in the middle below its border of cells."""
    axis = ""
    for quarter in range(5):
        label = f"{25 * quarter} %"
        axis = axis.ljust(1 + quarter * CELLS // 4 - len(label) // 2) + label
    return axis


def bar(value: Known) -> str:
    """CELLS characters of 0 to 1: full to the lower end of the interval, lighter to the value, faint to the upper end.

    Rounded so that it never looks better than it is: what is not nothing is seen, and 100 % alone fills it.
    """
    lower, upper = math.floor(_clamped(value.lower) * CELLS), math.ceil(_clamped(value.upper) * CELLS)
    upper = max(lower, upper)
    middle = min(max(round(_clamped(value.value) * CELLS), lower), upper)
    return "█" * lower + "▓" * (middle - lower) + "░" * (upper - middle) + " " * (CELLS - upper)


def point(value: Known, reach: float) -> str:
    """CELLS + 1 characters of -`reach` to `reach`: the value on its interval, with zero marked in the middle."""
    lower, middle, upper = (
        _clamped((share + reach) / (2 * reach)) * CELLS for share in (value.lower, value.value, value.upper)
    )
    first, last = math.floor(lower), max(math.ceil(upper), math.floor(lower))
    cells = [" "] * first + ["─"] * (last - first + 1) + [" "] * (CELLS - last)
    cells[CELLS // 2] = "│" if cells[CELLS // 2] == " " else "┼"
    cells[first], cells[last] = "├", "┤"
    cells[min(max(round(middle), first), last)] = "●"
    return "".join(cells)


def _clamped(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _drawable(value: Known | Unmeasured) -> TypeGuard[Known]:
    return (
        not isinstance(value, Unmeasured)
        and value.trials > 0
        and all(map(math.isfinite, (value.lower, value.value, value.upper)))
    )


def _picture(lines: Sequence[_Line], draw: Callable[[Known], str], axis: str, head: Iterable[str]) -> str:
    if not lines:
        return ""
    shown = _together(lines)[:MOST_LINES]
    drawn = list(head)
    for what, group in groupby(shown, key=lambda line: line.what):
        drawn += [visible(what, _NAME), *_rows(list(group), draw), f"{_INDENT}{axis}".rstrip(), ""]
    more = len(lines) - len(shown)
    drawn += [f"and {more} more, all in the JSON report"] if more > 0 else []
    return fenced(drawn if more > 0 else drawn[:-1])


def _together(lines: Sequence[_Line]) -> list[_Line]:
    """What is compared stands together, otherwise in the order in which it was measured."""
    first: dict[str, int] = {}
    for line in lines:
        first.setdefault(line.what, len(first))
    schemes = list(dict.fromkeys(line.scheme for line in lines))
    return sorted(lines, key=lambda line: (first[line.what], schemes.index(line.scheme)))


def _rows(group: Sequence[_Line], draw: Callable[[Known], str]) -> Iterator[str]:
    before = ""
    for line in group:
        scheme = line.scheme if line.scheme != before else ""
        before = line.scheme
        yield f"{scheme:<5} {line.subject:<8} {_drawn(line.value, draw)}"


def _drawn(value: Known | Unmeasured, draw: Callable[[Known], str]) -> str:
    if not _drawable(value):
        return "not measured"
    return f"{draw(value)} {percent(value.value):>7} {interval(value.lower, value.upper)}"
