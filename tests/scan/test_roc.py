"""The arithmetic of `benchmarks/scan_roc.py`: areas with intervals, smallest shares, what a preparation keeps."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("scan_stats")


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("scan_prepared")


def test_the_area_counts_pairs_in_order_and_ties_half(stats: Any) -> None:
    positives, negatives = [0.3, 0.7, 0.7, 2.0], [0.1, 0.7, 0.4]
    pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x, y in product(positives, negatives)]
    assert stats.area(positives, negatives).value == pytest.approx(sum(pairs) / len(pairs))


def test_the_area_is_that_under_the_curve(stats: Any) -> None:
    positives, negatives = [0.3, 0.7, 0.7, 2.0], [0.1, 0.7, 0.4]
    points = stats.curve(positives, negatives)
    under = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    assert points[0] == (0.0, 0.0)
    assert points[-1] == (1.0, 1.0)
    assert under == pytest.approx(stats.area(positives, negatives).value)


def test_perfect_order_is_bounded_by_its_disjoint_pairs(stats: Any) -> None:
    found = stats.area([2.0, 3.0, 4.0], [0.0, 1.0, 0.5, 0.2])
    assert (found.value, found.high, found.exact) == (1.0, 1.0, True)
    assert found.low == pytest.approx(0.025 ** (1 / 3))


def test_delong_is_the_textbook_formula(stats: Any) -> None:
    """Each score's own share of pairs in order, and the variances of those shares over the numbers of scores."""
    found = stats.area([1.0, 3.0], [0.0, 2.0])
    assert found.value == 0.75
    reach = 1.959964 * math.sqrt(0.125 / 2 + 0.125 / 2)  # shares 1/2 and 1 on both sides
    assert (found.low, found.high) == (pytest.approx(0.75 - reach, abs=1e-6), 1.0)


def test_one_score_makes_no_curve(stats: Any) -> None:
    with pytest.raises(ValueError, match="no curve of 1"):
        stats.area([1.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("tried", "smallest"),
    [
        ([(0.1, False), (0.2, True), (0.3, True)], 0.2),
        ([(0.1, True), (0.2, False), (0.3, True)], 0.3),
        ([(0.1, True), (0.3, False)], math.inf),
        ([], math.inf),
    ],
)
def test_smaller_shares_count_only_where_all_larger_ones_are_seen(
    stats: Any, tried: list[tuple[float, bool]], smallest: float
) -> None:
    assert stats.smallest_seen(tried) == smallest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", ROUNDINGS)
@pytest.mark.parametrize("way", ["clamped", "scattered", "pushed", "smooth", "by block", "about levels"])
def test_every_simulated_preparation_keeps_codes_and_scales(
    simulated: Any, way: str, scheme: Scheme, dtype: torch.dtype
) -> None:
    weight = (torch.randn(8, 192, generator=torch.Generator().manual_seed(1)) * 0.02).to(dtype)
    how = simulated.Preparation(scheme.value, way)
    made = simulated.wholly_prepared(weight, how, torch.Generator().manual_seed(2))
    grid = grid_for(scheme)
    assert made.dtype is dtype
    assert not torch.equal(made, weight)
    assert torch.equal(grid.nearest(made), grid.nearest(weight))
    assert torch.equal(grid.scale(made), grid.scale(weight))


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_clamped_weights_lie_at_the_published_margin(simulated: Any, scheme: Scheme) -> None:
    weight = torch.randn(8, 192, generator=torch.Generator().manual_seed(1)) * 0.02
    grid = grid_for(scheme)
    how = simulated.Preparation(scheme.value)
    made = simulated.wholly_prepared(weight, how, torch.Generator())
    position = grid.position_in_cell(made)[~grid.pinned(weight)]
    margin = 0.1 if scheme is Scheme.INT8 else 0.01
    off = torch.minimum(position, 1 - position).sub(margin).abs().max()
    assert off < (0.04 if scheme is Scheme.INT8 else 3e-3)  # INT8 casts to float16 first: a sixteenth of a step at most
