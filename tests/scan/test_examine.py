"""One weight under one grid: what each history is called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantguard.core.layer import POSITION_BINS
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.scan.examine import SUSPICIOUS, Examined, Kind
from tests.scan.weights import (
    DTYPES,
    adapted,
    crowded,
    dequantized,
    examined,
    generator,
    heavy_tailed,
    honest,
    laplacian,
    prepared,
)

FOUR_BITS = (Scheme.NF4, Scheme.FP4)


def kind(one: Examined) -> Kind:
    return one.kind(one.p_value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_honest_weights_are_clean(scheme: Scheme, dtype: torch.dtype) -> None:
    for weight in (
        honest(1),
        honest(2),
        laplacian(1),
        heavy_tailed(1),
        torch.rand(64, 64, generator=generator(1)) - 0.5,
    ):
        one = examined(weight.to(dtype), scheme)
        assert kind(one) is Kind.CLEAN
        assert one.strength < 1


@pytest.mark.parametrize("margin", [0.01, 0.1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", FOUR_BITS)
def test_a_tenth_at_a_margin_is_a_pile_there(scheme: Scheme, dtype: torch.dtype, margin: float) -> None:
    one = examined(prepared(honest(1, dtype), scheme, 0.1, margin=margin), scheme)
    assert kind(one) is Kind.PILE
    assert 0.01 < one.rise.share < 0.12
    # FP4's levels are not in the middle of their cells: a margin of the cell is two positions of the halves.
    assert abs((one.rise.begin + one.rise.end) / 2 - margin) < 0.02
    assert one.strength >= 1


@pytest.mark.parametrize(
    ("dtype", "margin", "share"),
    [
        (torch.float32, 0.01, 0.05),
        (torch.float32, 0.1, 0.05),
        (torch.float16, 0.1, 0.05),
        (torch.bfloat16, 0.1, 0.3),  # most of its cells are finer than bfloat16
    ],
)
def test_a_pile_in_the_cells_of_int8_is_seen(dtype: torch.dtype, margin: float, share: float) -> None:
    one = examined(prepared(honest(1, dtype), Scheme.INT8, share, margin=margin), Scheme.INT8)
    assert kind(one) is Kind.PILE
    assert abs((one.rise.begin + one.rise.end) / 2 - margin) < 0.02


def test_known_gap_a_tenth_in_bfloat16_on_int8_is_below_the_thresholds() -> None:
    one = examined(prepared(honest(1, torch.bfloat16), Scheme.INT8, 0.1), Scheme.INT8)
    assert kind(one) is Kind.CLEAN
    assert one.p_value < 1e-6


def test_known_gap_a_margin_finer_than_float16_is_called_crowded_on_int8() -> None:
    one = examined(prepared(honest(1, torch.float16), Scheme.INT8, 0.1, margin=0.01), Scheme.INT8)
    assert kind(one) is Kind.CROWDED


@pytest.mark.parametrize("spread", [0.1, 0.3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_margins_of_their_own_are_suspicious(scheme: Scheme, dtype: torch.dtype, spread: float) -> None:
    one = examined(prepared(honest(1, dtype), scheme, 1.0, margin=0.01, spread=spread), scheme)
    assert kind(one) in SUSPICIOUS
    assert one.rise.share > 0.01


@pytest.mark.parametrize(("scheme", "share"), [(Scheme.NF4, 0.5), (Scheme.FP4, 0.5), (Scheme.INT8, 1.0)])
def test_a_strip_that_many_of_the_weights_keep_out_of_is_depleted(scheme: Scheme, share: float) -> None:
    one = examined(prepared(honest(1), scheme, share, margin=0.01, spread=0.2), scheme)
    assert kind(one) is Kind.DEPLETED
    assert one.rise.depleted < 0.8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_some_weights_set_on_levels_are_atoms(scheme: Scheme, dtype: torch.dtype) -> None:
    weight = honest(1)
    some = torch.rand(weight.shape, generator=generator(5)) < 0.05
    one = examined(torch.where(some, dequantized(weight, scheme), weight).to(dtype), scheme)
    assert kind(one) is Kind.ATOMS
    assert one.atoms.share == pytest.approx(0.045, abs=0.03)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_all_of_them_are_on_the_grid_whatever_else_is_significant(scheme: Scheme, dtype: torch.dtype) -> None:
    one = examined(dequantized(honest(1, dtype), scheme), scheme)
    assert one.kind(0.0) is Kind.ON_GRID
    assert one.strength == 0


@pytest.mark.parametrize(
    ("scheme", "size"), [*((s, k) for s in FOUR_BITS for k in (1e-4, 5e-4, 1e-3)), (Scheme.INT8, 1e-4)]
)
def test_dequantized_and_merged_with_an_adapter_is_near_the_grid(scheme: Scheme, size: float) -> None:
    assert kind(examined(adapted(honest(1), scheme, size), scheme)) is Kind.NEAR_GRID


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_weights_pulled_to_the_boundaries_are_crowded(scheme: Scheme) -> None:
    one = examined(crowded(honest(1), scheme), scheme)
    assert kind(one) is Kind.CROWDED
    assert one.crowded > 1.2


@pytest.mark.parametrize("prepared_for", FOUR_BITS)
def test_int8_levels_hide_no_pile_of_four_bits(prepared_for: Scheme) -> None:
    """A pile at 10 % is many steps of INT8 wide in no cell of 4 bits; `spread` is what the survey looks at then."""
    stored = dequantized(prepared(honest(1), prepared_for, 0.3), Scheme.INT8)
    assert kind(examined(stored, Scheme.INT8)) is Kind.ON_GRID


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(4, 64),
        torch.ones(4, 64),
        torch.full((2, 3), 1e-30),
        torch.ones(2, 2),
        honest(1, size=(2, 2)),
        honest(1, size=(1, 64)),
        honest(1).sign(),
        torch.tensor([[1e38, -1e38], [1e38, 1e-38]]),
    ],
    ids=["zeros", "ones", "denormal", "2x2 ones", "2x2", "a block", "signs", "huge"],
)
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_weights_without_positions_say_nothing(scheme: Scheme, weight: Tensor) -> None:
    assert kind(examined(weight, scheme)) in {Kind.CLEAN, Kind.ON_GRID}


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_the_histogram_runs_over_the_cell_and_adds_up(scheme: Scheme) -> None:
    one = examined(prepared(honest(1), scheme, 0.2), scheme)
    assert len(one.histogram.observed) == len(one.histogram.expected) == POSITION_BINS
    assert sum(one.histogram.observed) == pytest.approx(one.weights, abs=2 * POSITION_BINS)
    assert sum(one.histogram.expected) == pytest.approx(one.weights, rel=0.01)
    odd = [o - e for o, e in zip(one.histogram.observed, one.histogram.expected, strict=True)]
    highest = sorted(range(POSITION_BINS), key=lambda place: -odd[place])[:2]
    assert sorted(highest) == ([6, 57] if scheme is Scheme.INT8 else [0, 63])  # both boundaries of the cell
