"""Pictures in text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantguard.core.measurement import Benchmark, Measurements, PairedDrop, Rate, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Subject
from quantguard.report.plot import CELLS, MOST_LINES, bar, drops_plot, point, rates_plot
from tests.report.made import MOST, NASTY, NONE, REPAIRED, hostile, measurements

ORIGINAL = measurements(Subject.ORIGINAL, backdoored=(Scheme.NF4,))
HARDENED = measurements(Subject.HARDENED)
QUARTERS = ["0 %", "25 %", "50 %", "75 %", "100 %"]
SHARES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


@given(st.integers(0, 50), SHARES)
def test_a_bar_never_looks_better_than_the_interval(successes: int, ends: list[float]) -> None:
    drawn = bar(Rate(successes, 50, ends[0], ends[1], 0.95))
    assert len(drawn) == CELLS
    assert drawn == "█" * drawn.count("█") + "▓" * drawn.count("▓") + "░" * drawn.count("░") + " " * drawn.count(" ")
    assert drawn.count("█") <= ends[0] * CELLS
    assert CELLS - drawn.count(" ") >= ends[1] * CELLS


def test_bars_of_known_rates() -> None:
    assert bar(Rate(0, 9, 0, 0, 0.95)) == " " * CELLS
    assert bar(Rate(9, 9, 1, 1, 0.95)) == "█" * CELLS
    assert bar(Rate(0, 200, 0, 0.018, 0.95)).rstrip() == "░"
    assert bar(Rate(200, 200, 0.982, 1, 0.95)) == "█" * (CELLS - 1) + "▓"
    assert bar(Rate(1, 2, 0.25, 0.75, 0.95)) == "█" * 12 + "▓" * 12 + "░" * 12 + " " * 12


@given(st.integers(-40, 40), st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted), st.sampled_from([0.01, 0.2, 1]))
def test_a_point_lies_on_its_interval_and_zero_in_the_middle(net: int, ends: list[float], reach: float) -> None:
    drawn = point(PairedDrop(max(net, 0), max(-net, 0), 40, ends[0], ends[1], 0.95), reach)
    assert len(drawn) == CELLS + 1
    assert drawn.count("●") == 1
    assert drawn[CELLS // 2] != " "
    if ends[0] > 0.5 * reach:
        assert drawn[: CELLS // 2].strip() == ""


def test_points_of_known_drops() -> None:
    half = CELLS // 2
    assert point(PairedDrop(0, 0, 9, 0, 0, 0.95), 0.1) == " " * half + "●" + " " * half
    assert point(PairedDrop(0, 0, 9, -1, 1, 0.95), 1) == "├" + "─" * (half - 1) + "●" + "─" * (half - 1) + "┤"
    drawn = point(PairedDrop(1, 0, 2, 0.25, 0.75, 0.95), 1)
    assert (drawn.index("│"), drawn.index("├"), drawn.index("●"), drawn.index("┤")) == (24, 30, 36, 42)
    assert point(PairedDrop(1, 0, 2, -0.5, 0.75, 0.95), 1)[half] == "┼"


@pytest.mark.parametrize("measured", [ORIGINAL, hostile().original])
@pytest.mark.parametrize("plot", [rates_plot, drops_plot])
def test_no_line_is_wider_than_a_summary(
    plot: Callable[[Measurements | None, Measurements | None], str], measured: Measurements
) -> None:
    widest = PairedDrop(0, 200, 200, -1.0, -0.9999, 0.95)
    benchmarks = (*measured.benchmarks, replace(ORIGINAL.benchmarks[0], drop=widest, task="w" * 500))
    lines = plot(replace(measured, benchmarks=benchmarks), HARDENED).splitlines()
    assert 60 < max(map(len, lines)) <= 100


def test_bars_and_figures_stand_below_each_other() -> None:
    rows = [line for line in rates_plot(ORIGINAL, HARDENED).splitlines() if "│" in line]
    assert len(rows) == 16
    assert {(row.index("│"), row.rindex("│"), row.index(" %")) for row in rows} == {(15, 64, 71)}
    heads = [line for line in drops_plot(ORIGINAL, HARDENED).splitlines() if "●" in line]
    assert {line.index(" %") for line in heads} == {71}


def test_the_axis_names_the_quarters_below_their_cells() -> None:
    (axis,) = {line for line in rates_plot(ORIGINAL, HARDENED).splitlines() if " 25 %" in line}
    middles = [16 + CELLS * quarter // 4 for quarter in range(5)]
    assert [axis[at - len(label) // 2 :][: len(label)] for at, label in zip(middles, QUARTERS, strict=True)] == QUARTERS


def test_before_stands_above_after() -> None:
    lines = rates_plot(ORIGINAL, HARDENED).splitlines()
    (before,) = [number for number, line in enumerate(lines) if "97.0 %" in line]
    assert lines[before].startswith("nf4   original │█")
    assert lines[before + 1].startswith("      hardened │░")


def test_what_was_not_measured_is_said() -> None:
    odd = (Unmeasured("x"), Rate(0, 0, 0, 1, 0.95), replace(NONE, upper=math.nan), replace(MOST, lower=math.inf))
    attacks = tuple(replace(ORIGINAL.attacks[0], rate=rate) for rate in odd)
    picture = rates_plot(replace(ORIGINAL, attacks=attacks), None)
    assert picture.count("not measured") == len(odd)
    assert "│" not in picture
    benchmarks = (replace(ORIGINAL.benchmarks[0], drop=Unmeasured("x")),)
    assert drops_plot(replace(ORIGINAL, benchmarks=benchmarks), None).count("not measured") == 1


def test_nothing_measured_is_no_picture() -> None:
    assert rates_plot(None, None) == drops_plot(None, None) == ""
    assert rates_plot(replace(ORIGINAL, attacks=()), None) == ""


def test_the_axis_reaches_the_widest_interval() -> None:
    def axis(upper: float) -> str:
        drop = PairedDrop(0, 0, 100, -0.001, upper, 0.95)
        return drops_plot(replace(ORIGINAL, benchmarks=(replace(ORIGINAL.benchmarks[0], drop=drop),)), None)

    assert "1 % gained" in axis(0.01)
    assert "2 % gained" in axis(0.0101)
    assert "100 % gained" in axis(0.51)
    assert "100 % gained" in axis(99.0)


def test_a_name_cannot_end_the_block() -> None:
    benchmark = Benchmark("```\n# evil ````", None, NONE, ORIGINAL.benchmarks[0].drop, "sha256:cc")
    picture = drops_plot(replace(ORIGINAL, benchmarks=(benchmark,)), None).splitlines()
    assert picture[0] == "`````text"
    assert picture[-1] == "`````"
    assert "`````" not in "".join(picture[1:-1])
    assert NASTY not in rates_plot(hostile().original, REPAIRED.hardened)


def test_a_picture_is_cut_and_says_so() -> None:
    many = tuple(replace(ORIGINAL.benchmarks[1], task=f"task-{number}") for number in range(1000))
    picture = drops_plot(replace(ORIGINAL, benchmarks=many), HARDENED)
    assert picture.count("●") == MOST_LINES
    assert f"and {1000 + 4 - MOST_LINES} more, all in the JSON report" in picture
