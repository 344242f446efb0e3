"""What is said of a layer follows from its figures, whatever they are."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.core.layer import POSITION_BINS, LayerScan, PositionHistogram
from quantguard.core.scheme import Scheme
from quantguard.report.facts import ReportFacts
from quantguard.report.layers import ASCII_RAMP, COLUMNS, RAMP, at_distance, caption, layer_of, sparkline
from quantguard.report.write import FORMATS
from tests.report.made import BOUNDARY, CALM, LAYERS, NASTY, PILED, UNSEEN, hostile, piled

LAST = POSITION_BINS // 2 - 1  # bin beside the level, from either boundary
COUNTS = st.lists(st.integers(0, 10**9), min_size=POSITION_BINS, max_size=POSITION_BINS).map(tuple)
FLOATS = st.lists(st.floats() | st.floats(0, 1e9), min_size=POSITION_BINS, max_size=POSITION_BINS).map(tuple)
LAYER = st.builds(
    LayerScan,
    st.just("w"),
    st.sampled_from(["NF4", "groups of 32"]),
    st.integers(0, 10**9),
    st.floats(),
    st.floats(),
    st.floats(),
    st.booleans(),
    st.none() | st.builds(PositionHistogram, COUNTS, FLOATS),
)


def test_a_pile_is_told_with_its_share_its_place_and_its_height() -> None:
    assert caption(PILED) == (
        "An excess of 11.2 % of the weights lies about 1.5 % of a cell from the nearest boundary: 7.3 times what the "
        "smooth density of the same weights puts there."
    )


def test_a_calm_layer_is_told_to_be_calm() -> None:
    assert caption(CALM).startswith(
        "Nothing stands out: the largest excess is 0.1 % of the weights, about 23.5 % of a cell"
    )


def test_beside_a_depleted_strip_an_excess_is_one_all_the_same() -> None:
    """As the scan tells it: what is missing at the boundary lies a little further in, spread."""
    depleted = replace(PILED, distance=0.04, histogram=piled(height=40, at=0))
    assert caption(depleted) == (
        "No single pile: an excess of 11.2 % of the weights is spread about 4.0 % of a cell from the nearest boundary. "
        "At the boundary itself lie 0.3 times as many as expected."
    )
    fewer = replace(PILED, distance=0.04, histogram=PositionHistogram((40,) * POSITION_BINS, (120.0,) * POSITION_BINS))
    assert caption(fewer).startswith("No single pile: an excess of 11.2 %")


def test_an_emptied_boundary_is_told_beside_the_excess_further_in() -> None:
    emptied = piled(height=3, at=0)
    moved = tuple(900 if place in (13, POSITION_BINS - 14) else count for place, count in enumerate(emptied.observed))
    layer = replace(PILED, distance=0.205, histogram=replace(emptied, observed=moved))
    assert caption(layer).endswith("puts there. At the boundary itself lie 0.0 times as many as expected.")
    assert "itself" not in caption(replace(PILED, distance=0.205, histogram=piled(at=13)))


def test_weights_on_their_levels_are_told_by_the_level() -> None:
    atoms = replace(PILED, distance=0.5, histogram=piled(height=5000, at=LAST))
    assert caption(atoms).startswith("An excess of 11.2 % of the weights lies on the levels themselves: 40")


def test_what_a_quantizer_left_behind_is_told_without_alarm() -> None:
    on_grid = replace(CALM, share=0.98, distance=0.5, histogram=piled(height=5000, at=LAST))
    assert caption(on_grid).startswith("Not suspicious: 40")
    assert caption(on_grid).endswith("lie on the levels, as in a model that was quantized before.")
    crowded = replace(CALM, distance=0.0, histogram=piled(height=300, at=0))
    assert caption(crowded).startswith("Not suspicious: the weights crowd about the boundaries, 2.4 times")


def test_an_excess_that_is_spread_is_told_so() -> None:
    assert caption(replace(PILED, histogram=piled(height=125))).startswith("No single pile: an excess of 11.2 %")


@pytest.mark.parametrize("at", [0, 1, 17, LAST])
@pytest.mark.parametrize("offset", [0.0, 0.005, 0.0099])
def test_a_pile_is_found_where_it_is_said_to_be(at: int, offset: float) -> None:
    bins = at_distance(piled(at=at), at / POSITION_BINS + offset)
    assert bins.observed == 1800
    assert bins.ratio is not None
    assert bins.ratio == pytest.approx(1800 / bins.expected)


@given(LAYER)
@settings(deadline=None)  # the first call imports what the formats need
def test_any_figures_make_a_caption_and_a_picture(layer: LayerScan) -> None:
    assert caption(layer).endswith(".")
    facts = ReportFacts("m", findings=(), layers=(layer,))
    for render in FORMATS.values():
        render(facts).encode("utf-8")


@given(COUNTS)
def test_a_line_is_as_wide_as_ever_and_highest_where_most_weights_are(counts: tuple[int, ...]) -> None:
    histogram = PositionHistogram(counts, (1.0,) * POSITION_BINS)
    for ramp in (RAMP, ASCII_RAMP):
        line = sparkline(histogram, ramp)
        assert len(line) == COLUMNS
        assert set(line) <= set(ramp)
        top = counts.index(max(counts)) * COLUMNS // POSITION_BINS
        assert line[top] == (ramp[-1] if max(counts) else ramp[0])
    assert len(RAMP) == len(ASCII_RAMP)


def test_a_finding_belongs_to_the_layer_of_its_name_and_grid() -> None:
    other = replace(PILED, grid="FP4")
    layers = (other, *LAYERS)
    assert layer_of(BOUNDARY, layers) == PILED
    assert layer_of(replace(BOUNDARY, scheme=Scheme.FP4), layers) == other
    assert layer_of(replace(BOUNDARY, scheme=None), layers) == other
    assert layer_of(replace(BOUNDARY, where=UNSEEN.name, scheme=None, grid="Q4_K"), layers) == UNSEEN
    assert layer_of(replace(BOUNDARY, where="config.json"), layers) is None


def test_sarif_carries_the_figures_and_the_histogram_of_a_finding() -> None:
    facts = ReportFacts("m", findings=(BOUNDARY, replace(BOUNDARY, where="layers.9.weight")), layers=LAYERS)
    with_layer, without = json.loads(FORMATS["sarif"](facts))["runs"][0]["results"]
    assert PILED.histogram is not None
    histogram = {"observed": list(PILED.histogram.observed), "expected": list(PILED.histogram.expected)}
    figures = {"effect": 8.8, "share": 0.4, "pValue": 1e-30}
    of_layer = {"grid": "NF4", "distance": 0.015, "weights": 14_000, "histogram": histogram}
    assert with_layer["properties"] == {**figures, **of_layer}
    assert without["properties"] == figures


def test_sarif_of_hostile_figures_has_no_number_that_json_does_not_know() -> None:
    finding = replace(BOUNDARY, where=NASTY, scheme=None, grid=NASTY, effect=math.inf, share=math.nan)
    facts = replace(hostile(), outcome=None, findings=(finding,))
    results = json.loads(FORMATS["sarif"](facts), parse_constant=pytest.fail)["runs"][0]["results"]
    assert results[0]["properties"] == {"pValue": 1e-30, "grid": NASTY, "distance": 0.015, "weights": 14_000}
