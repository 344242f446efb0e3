"""The boxes of the published attack against the real library: within them no code changes."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantguard.canary.range.box import PUBLISHED_MARGIN, Box, box_of, drawn_margins, everywhere
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for
from tests.grids.real import round_trip

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TARGETS = [schemes for count in (1, 2, 3) for schemes in itertools.combinations(ROUNDINGS, count)]
SPREAD = 0.3


def named(schemes: tuple[Scheme, ...]) -> str:
    return "+".join(scheme.value for scheme in schemes)


def gaussian(rows: int = 48, columns: int = 128, seed: int = 5) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.03


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    weight = gaussian(draw(st.integers(1, 5)), draw(st.sampled_from([2, 64, 100, 192])), draw(st.integers(0, 2**32)))
    weight[torch.rand(weight.shape) < 0.1] = 0.0
    return (weight * draw(st.sampled_from([0.3, 1.0, 100.0]))).to(draw(st.sampled_from(DTYPES)))


@pytest.mark.parametrize("schemes", TARGETS, ids=named)
@settings(max_examples=20, deadline=None)
@given(weight=weights())
def test_both_ends_of_a_box_keep_every_code_of_every_scheme(schemes: tuple[Scheme, ...], weight: Tensor) -> None:
    box = box_of(weight, schemes)
    assert bool((box.low <= weight.float()).all())
    assert bool((weight.float() <= box.high).all())
    for scheme in schemes:
        before = round_trip(scheme, weight.float())
        assert torch.equal(round_trip(scheme, box.low), before)
        assert torch.equal(round_trip(scheme, box.high), before)


@pytest.mark.parametrize("schemes", TARGETS, ids=named)
def test_what_decides_a_scale_has_no_room_and_most_others_have(schemes: tuple[Scheme, ...]) -> None:
    weight = gaussian()
    box = box_of(weight, schemes)
    pinned = torch.stack([grid_for(scheme).pinned(weight) for scheme in schemes]).any(dim=0)
    assert torch.equal(box.low[pinned], weight[pinned])
    assert torch.equal(box.high[pinned], weight[pinned])
    assert ((box.high > box.low)[~pinned]).float().mean() > 0.9


@pytest.mark.parametrize("schemes", TARGETS, ids=named)
def test_more_schemes_leave_less_room(schemes: tuple[Scheme, ...]) -> None:
    weight = gaussian()
    box = box_of(weight, schemes)
    for one in (box_of(weight, [scheme]) for scheme in schemes):
        assert bool((one.low <= box.low).all())
        assert bool((box.high <= one.high).all())


def test_clamping_moves_only_what_lies_outside() -> None:
    weight = torch.tensor([[-3.0, 0.5, 3.0]])
    Box(torch.full((1, 3), -1.0), torch.full((1, 3), 2.0)).clamp_(weight)
    assert weight.tolist() == [[-1.0, 0.5, 2.0]]


def test_everywhere_bounds_nothing_and_only_fixes_the_rest() -> None:
    weight = gaussian(2, 64)
    free = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    box = everywhere(weight).only(free, weight)
    far = weight + 7
    expected = torch.where(free, far, weight)
    box.clamp_(far)
    assert torch.equal(far, expected)


@pytest.mark.parametrize("schemes", TARGETS, ids=named)
def test_no_displacement_shrinks_nothing(schemes: tuple[Scheme, ...]) -> None:
    weight = gaussian()
    box = box_of(weight, schemes)
    same = box.shrunk(torch.zeros_like(weight), weight)
    assert torch.equal(same.low, box.low)
    assert torch.equal(same.high, box.high)


@pytest.mark.parametrize("displacement", [1e-5, 1e-3, 0.1, 1e9])
def test_a_shrunk_box_lies_in_the_first_holds_the_start_and_is_never_empty(displacement: float) -> None:
    weight = gaussian()
    box = box_of(weight, [Scheme.NF4])
    drawn_in = box.shrunk(torch.full_like(weight, displacement), weight)
    assert bool((box.low <= drawn_in.low).all())
    assert bool((drawn_in.low <= weight).all())
    assert bool((weight <= drawn_in.high).all())
    assert bool((drawn_in.high <= box.high).all())


def test_within_a_shrunk_box_a_defence_of_that_reach_changes_no_code() -> None:
    """Where start and cell allow it: the cell is wider than twice the reach, and the start lies that far inside."""
    weight, reach = gaussian(), 2e-4
    box = box_of(weight, [Scheme.NF4])
    drawn_in = box.shrunk(torch.full_like(weight, reach), weight)
    roomy = (box.low + reach <= weight) & (weight <= box.high - reach)
    assert roomy.float().mean() > 0.5
    grid = grid_for(Scheme.NF4)
    for end in (drawn_in.low - reach, drawn_in.high + reach):
        pushed = torch.where(roomy, end, weight)
        assert torch.equal(grid.nearest(pushed), grid.nearest(weight))


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_margins_that_differ_are_never_below_the_published_one(scheme: Scheme) -> None:
    weight = gaussian()
    published = box_of(weight, [scheme])
    drawn = box_of(weight, [scheme], drawn_margins(weight, SPREAD, torch.Generator().manual_seed(1)))
    assert bool((published.low <= drawn.low).all())
    assert bool((drawn.high <= published.high).all())


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_weights_with_drawn_margins_pile_up_nowhere(scheme: Scheme) -> None:
    """Weights pushed as far up as they may go: with the published margin all stand at one position of the cell."""
    weight = gaussian()
    margins = drawn_margins(weight, SPREAD, torch.Generator().manual_seed(1))
    assert _piled(weight, box_of(weight, [scheme]), scheme) > 0.99
    assert _piled(weight, box_of(weight, [scheme], margins), scheme) < 0.15
    assert 0 <= margins.min() < margins.max() <= SPREAD


def _piled(weight: Tensor, box: Box, scheme: Scheme) -> float:
    """Largest share of the movable weights at one position of their cells, when all are pushed up; bins of 1/50."""
    grid = grid_for(scheme)
    lower, upper = grid.cell(grid.nearest(weight))
    position = ((box.high / grid.unit(weight) - lower) / (upper - lower))[~grid.pinned(weight) & (weight < box.high)]
    bins = torch.histc(position, bins=50, min=-0.01, max=0.99 + 1e-6)  # 0.99 and 0.9 lie within a bin
    return float(bins.max() / position.numel())


def test_margins_are_drawn_anew_for_each_seed_and_alike_for_one() -> None:
    weight = gaussian()
    one, same, other = (drawn_margins(weight, SPREAD, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_published_margins_are_those_of_the_paper() -> None:
    assert PUBLISHED_MARGIN == {Scheme.INT8: 0.1, Scheme.FP4: 0.01, Scheme.NF4: 0.01}
