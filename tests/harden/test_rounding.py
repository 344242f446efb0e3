"""The rounding variables and the loss terms, on weights small enough to follow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.commit import commit
from quantguard.grids.grid import Grid, grid_for
from quantguard.harden.losses import distance, divergence, reversal
from quantguard.harden.rounding import Rounding, rounding_of, start_of

SCHEMES = ROUNDINGS


def drawn(scheme: Scheme, dtype: torch.dtype = torch.float32) -> tuple[Grid, Tensor, Rounding]:
    weight = (torch.randn(24, 128, generator=torch.Generator().manual_seed(4)) * 0.05).to(dtype)
    grid = grid_for(scheme)
    return grid, weight, rounding_of(grid, weight, torch.zeros_like(weight, dtype=torch.bool))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_at_the_start_nothing_has_moved(scheme: Scheme, dtype: torch.dtype) -> None:
    grid, weight, rounding = drawn(scheme, dtype)
    start = start_of(grid, weight)
    assert torch.equal(rounding.soft_weight(start), weight.float())
    assert float(distance(rounding, rounding.soft_weight(start))) == 0.0
    clear = (rounding.position - 0.5).abs() > 1e-3
    assert torch.equal(rounding.chosen(start)[clear], grid.nearest(weight)[clear])
    assert not bool(rounding.flipped(start)[clear].any())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ends_of_a_variable_are_the_enclosing_levels(scheme: Scheme) -> None:
    grid, weight, rounding = drawn(scheme)
    for variable, level in ((-30.0, 0), (30.0, 1)):
        at_end = torch.full_like(weight, variable)
        expected = grid.value(weight, rounding.low.long() + level)
        moved = rounding.soft_weight(at_end)
        off = 0.07 if scheme is Scheme.INT8 else 1e-3  # of a step: INT8 places the float16 of the weight
        assert bool(((moved - expected).abs() <= off * grid.unit(weight))[rounding.free].all())
        assert torch.equal(rounding.chosen(at_end)[rounding.free], (rounding.low.long() + level)[rounding.free])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_reversal_pulls_every_weight_away_from_its_stock_rounding(scheme: Scheme) -> None:
    """For 4-bit too: the published code compares un-normalised weights with normalised levels and misses half."""
    grid, weight, rounding = drawn(scheme)
    variable = start_of(grid, weight).requires_grad_()
    torch.autograd.backward(reversal(rounding, variable))
    assert variable.grad is not None
    downhill = -variable.grad.sign()
    away = torch.where(rounding.nearest_up > 0, -1.0, 1.0)
    moved = rounding.free & (rounding.error > 0)
    assert torch.equal(downhill[moved], away[moved])
    assert bool((variable.grad[~rounding.free] == 0).all())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_reversal_pulls_harder_where_rounding_moves_the_weight_further(scheme: Scheme) -> None:
    _, _, rounding = drawn(scheme)
    variable = torch.zeros_like(rounding.position, requires_grad=True)
    torch.autograd.backward(reversal(rounding, variable))
    assert variable.grad is not None
    pull, error = variable.grad.abs()[rounding.free], rounding.error[rounding.free]
    assert torch.allclose(pull / pull.max(), error / error.max(), atol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_that_decide_a_scale_never_move(scheme: Scheme) -> None:
    grid, weight, rounding = drawn(scheme)
    pinned = grid.pinned(weight)
    anywhere = torch.randn(weight.shape, generator=torch.Generator().manual_seed(8)) * 5
    assert torch.equal(rounding.soft_weight(anywhere)[pinned], weight[pinned])
    assert torch.equal(rounding.chosen(anywhere)[pinned], grid.nearest(weight)[pinned])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_any_choice_can_be_committed(scheme: Scheme, dtype: torch.dtype) -> None:
    grid, weight, rounding = drawn(scheme, dtype)
    anywhere = torch.randn(weight.shape, generator=torch.Generator().manual_seed(8)) * 5
    chosen = rounding.chosen(anywhere)
    committed = commit(grid, weight, chosen, near=rounding.soft_weight(anywhere))
    assert torch.equal(grid.nearest(committed), chosen)


def test_divergence_is_zero_for_equal_models_and_grows_with_what_differs() -> None:
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(1))
    assert float(divergence(logits, logits)) == pytest.approx(0.0, abs=1e-6)
    one, two = logits.clone(), logits.clone()
    one[0, 0] += 1
    two[:2, 0] += 1
    assert float(divergence(two, logits)) > float(divergence(one, logits)) > 0.01
