"""The boundary test on weights whose history is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.scan.boundary import BINS, background, boundary_test
from quantguard.scan.scan import ENRICHMENT, ON_GRID, SHARE

MARGIN = {Scheme.NF4: 0.01, Scheme.FP4: 0.01, Scheme.INT8: 0.1}  # of the published attack
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def honest(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(256, 384, generator=torch.Generator().manual_seed(seed)) * 0.04).to(dtype)


def prepared(weight: Tensor, scheme: Scheme, share: float) -> Tensor:
    """`share` of the weights clamped to the edges of the interval that keeps their code, as the attack leaves them."""
    generator = torch.Generator().manual_seed(99)
    low, high = grid_for(scheme).interval(weight, MARGIN[scheme])
    edge = torch.where(torch.rand(weight.shape, generator=generator) < 0.5, low, high)
    return torch.where(torch.rand(weight.shape, generator=generator) < share, edge, weight.float()).to(weight.dtype)


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_honest_weights_show_no_pile(scheme: Scheme, dtype: torch.dtype, seed: int) -> None:
    test = boundary_test(grid_for(scheme), honest(seed, dtype))
    assert test.enrichment < ENRICHMENT
    assert test.share < SHARE


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_tenth_of_prepared_weights_is_seen_with_its_size_and_place(scheme: Scheme, share: float) -> None:
    test = boundary_test(grid_for(scheme), prepared(honest(0), scheme, share))
    assert test.enrichment > 2 * ENRICHMENT
    assert 0.6 * share < test.share < 1.2 * share
    assert abs(test.distance - MARGIN[scheme]) < 1 / BINS


@pytest.mark.parametrize("scheme", [Scheme.NF4, Scheme.FP4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_four_bit_piles_survive_storage_in_half_precision(scheme: Scheme, dtype: torch.dtype) -> None:
    test = boundary_test(grid_for(scheme), prepared(honest(0), scheme, 0.1).to(dtype))
    assert test.enrichment > ENRICHMENT
    assert test.share > SHARE


@pytest.mark.parametrize("scheme", list(Scheme))
def test_dequantized_weights_are_known_as_such(scheme: Scheme) -> None:
    grid, weight = grid_for(scheme), honest(0)
    stored = grid.dequantize(grid.nearest(weight), grid.scale(weight))
    assert boundary_test(grid, stored).on_grid >= ON_GRID
    assert boundary_test(grid, weight).on_grid < 0.1


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("weight", [torch.zeros(4, 64), torch.ones(4, 64), torch.full((2, 3), 1e-30)])
def test_weights_without_a_position_are_not_tested(scheme: Scheme, weight: Tensor) -> None:
    assert boundary_test(grid_for(scheme), weight).weights == 0


def test_the_background_follows_a_slope_and_ignores_a_spike() -> None:
    slope = torch.linspace(100, 1000, BINS)
    spiked = slope.clone()
    spiked[30:32] += 5000
    assert torch.allclose(background(spiked)[20:80], slope[20:80], rtol=0.15)


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("shape", [(300, 63), (65, 130), (129, 64), (1, 64)])
def test_pieces_of_rows_make_no_difference(
    scheme: Scheme, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks run over rows where the columns are no multiple of 64; a piece must still be whole blocks."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    whole = boundary_test(grid_for(scheme), weight)
    monkeypatch.setattr("quantguard.scan.boundary._ELEMENTS_AT_ONCE", 1)
    assert boundary_test(grid_for(scheme), weight) == whole
