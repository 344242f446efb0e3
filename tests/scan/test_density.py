"""The smooth density that honest weights have: close to honest ones, steady on anything else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.scan.cells import cells_of
from quantguard.scan.density import _ROUGHNESS, REACH, fit_density, poisson_regression, running_sum, spline_basis
from quantguard.scan.histogram import FINE, HALF
from tests.scan.weights import counts_of, dequantized, generator, honest

U = (torch.arange(FINE, dtype=torch.float64) + 0.5) / HALF - 1
WEIGHTS = 1e7
DENSITIES = {
    "gaussian of a block": (U / 0.4).square().div(-2).exp(),
    "gaussian of a long row": (U / 0.22).square().div(-2).exp(),
    "laplace of a block": U.abs().div(-0.2).exp(),
    "laplace of a long row": U.abs().div(-0.1).exp(),
    "uniform": torch.ones(FINE, dtype=torch.float64),
    "lopsided": ((U - 0.1) / 0.35).square().div(-2).exp(),
}


def exact(density: Tensor) -> Tensor:
    """Counts with no noise in them."""
    return torch.nn.functional.pad(density / density.sum() * WEIGHTS, (0, 1))


def single(place: int, weights: float) -> Tensor:
    counts = torch.zeros(FINE + 1)
    counts[place] = weights
    return counts


@pytest.mark.parametrize("name", DENSITIES)
def test_a_smooth_density_is_fitted_to_within_one_per_cent(name: str) -> None:
    """Of all weights; and at no position of the cells is it 1 % off."""
    running = running_sum(exact(DENSITIES[name]))
    coefficients = fit_density(running)
    inside = U.abs() < REACH
    fitted = torch.exp(spline_basis(U[inside]) @ coefficients)
    wrong = (fitted - exact(DENSITIES[name])[:FINE][inside]).abs().sum() / WEIGHTS
    assert float(wrong) < 0.01
    for scheme in ROUNDINGS:
        observed, expected = cells_of(scheme).observed(running), cells_of(scheme).expected(coefficients)
        assert float((observed.sum(0) / expected.sum(0) - 1).abs().max()) < 0.01


def test_a_sample_is_fitted_as_well_as_it_can_be() -> None:
    """Chi-squared over the positions stays near their number: what is left is the noise of the sample."""
    counts = torch.poisson(exact(DENSITIES["gaussian of a block"]) / 10, generator=generator(1))
    running = running_sum(counts)
    cells = cells_of(Scheme.NF4)
    observed, expected = cells.observed(running).sum(0), cells.expected(fit_density(running)).sum(0)
    chi = float(((observed - expected).square() / expected).sum())
    assert 0.7 * 256 < chi < 1.35 * 256


def nudged(scheme: Scheme, noise: float) -> Tensor:
    stored = dequantized(honest(1), scheme)
    return stored + noise * torch.randn(stored.shape, generator=generator(2))


ODD = {
    "levels of NF4 and a little noise": counts_of(nudged(Scheme.NF4, 1e-4)).block,
    "levels of NF4 and hardly any": counts_of(nudged(Scheme.NF4, 1e-7)).block,
    "levels of FP4 and a little noise": counts_of(nudged(Scheme.FP4, 1e-4)).block,
    "levels of INT8": counts_of(dequantized(honest(1), Scheme.INT8)).row,
    "pruned about zero": counts_of(torch.where(honest(1).abs() < 0.05, torch.zeros(()), honest(1))).block,
    "signs alone": counts_of(honest(1).sign()).block,
    "no weight": torch.zeros(FINE + 1),
    "one weight": single(5000, 1),
    "a heap in one bin": single(100, 1e9),
    "a heap beside zero": single(HALF + 3, 1e9),
    "zeros alone": single(HALF, 1e9),
    "one weight in each bin": torch.ones(FINE + 1),
    "a heap at either side": single(9_000, 1e6) + single(FINE - 9_000, 1e6),
}


@pytest.mark.parametrize("name", ODD)
def test_gaps_and_heaps_do_not_throw_the_fit_off(name: str) -> None:
    """It stays a number everywhere, and expects about as many weights as there are."""
    running = running_sum(ODD[name])
    coefficients = fit_density(running)
    assert bool(coefficients.isfinite().all())
    expected = torch.exp(spline_basis(U[U.abs() < REACH]) @ coefficients)
    assert bool(expected.isfinite().all())
    edge = int((1 - REACH) * HALF)
    inside = float(running[FINE - edge] - running[edge])
    assert float(expected.sum()) == pytest.approx(inside, rel=0.05, abs=2.0)


def gain(coefficients: Tensor, counts: Tensor, basis: Tensor, exposure: Tensor) -> float:
    """The penalised log-likelihood, as the docstring has it."""
    functions = basis.shape[1]
    bend = torch.diff(torch.eye(functions, dtype=torch.float64), n=3, dim=0)
    eta = basis @ coefficients
    charged = (1e-2 + _ROUGHNESS * counts.sum()) * (bend @ coefficients).square().sum() / 2
    return float((counts * (eta + exposure.log())).sum() - (eta.exp() * exposure).sum() - charged)


@given(seed=st.integers(0, 2**31), weights=st.sampled_from([0, 3, 100, 10_000]), start=st.floats(-3, 3))
def test_the_regression_never_ends_worse_than_it_began(seed: int, weights: int, start: float) -> None:
    drawn = generator(seed)
    basis = spline_basis(torch.linspace(-0.97, 0.97, 80, dtype=torch.float64))
    exposure = 1 + 50 * torch.rand(80, generator=drawn, dtype=torch.float64)
    counts = torch.poisson(weights / 80 * torch.rand(80, generator=drawn, dtype=torch.float64), generator=drawn)
    first = start * torch.randn(basis.shape[1], generator=drawn, dtype=torch.float64)
    last = poisson_regression(counts, basis, exposure, first)
    reached = gain(last, counts, basis, exposure)
    assert reached >= gain(first, counts, basis, exposure) - 1e-9
    again = poisson_regression(counts, basis, exposure, last)
    assert gain(again, counts, basis, exposure) >= reached - 1e-9


@given(seed=st.integers(0, 2**31))
def test_the_regression_finds_the_same_maximum_from_anywhere(seed: int) -> None:
    drawn = generator(seed)
    basis = spline_basis(torch.linspace(-0.97, 0.97, 120, dtype=torch.float64))
    exposure = torch.ones(120, dtype=torch.float64)
    truth = torch.randn(basis.shape[1], generator=drawn, dtype=torch.float64)
    counts = torch.poisson(50 * torch.exp(basis @ truth), generator=drawn)
    found = []
    for spread in (0.0, 1.0):
        first = 3 + spread * torch.randn(basis.shape[1], generator=drawn, dtype=torch.float64)
        found.append(gain(poisson_regression(counts, basis, exposure, first), counts, basis, exposure))
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=0.05)


def test_a_known_rate_is_found_again() -> None:
    basis = spline_basis(torch.linspace(-0.97, 0.97, 400, dtype=torch.float64))
    rate = torch.full((400,), 1000.0, dtype=torch.float64)
    flat = torch.zeros(basis.shape[1], dtype=torch.float64)
    found = torch.exp(basis @ poisson_regression(rate, basis, torch.ones(400, dtype=torch.float64), flat))
    assert torch.allclose(found, rate, rtol=1e-3)


def test_exact_zeros_are_no_part_of_the_density() -> None:
    """Neither a pruned tensor's zeros nor the padding of a short block make a hill of the middle."""
    counts = exact(DENSITIES["gaussian of a block"])
    pruned = counts.clone()
    pruned[HALF] += WEIGHTS
    assert torch.allclose(running_sum(pruned), running_sum(counts))
    assert float(pruned[HALF]) > WEIGHTS  # what was counted stays as it is
