"""Grids of other quantizers, by position alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from quantguard.core.finding import Severity
from quantguard.grids.k_quant import dequantize_q4_k, frozen_q4_k, quantize_q4_k
from quantguard.scan.examine import Kind
from quantguard.scan.formats import GROUPS, POSITIONS, ZERO_POINTS, examine_positions, positions_of
from quantguard.scan.scan import scan
from tests.checkpoint.build import write_model
from tests.scan.weights import generator, heavy_tailed, honest, laplacian

SIZE = (512, 512)


def grids_of(*sizes: int) -> tuple[str, ...]:
    return tuple(f"groups of {size}{zero}" for size in sizes for zero in ZERO_POINTS.values())


NAMES = ("Q4_K", "Q6_K", *grids_of(*GROUPS))


def kinds(sample: Tensor) -> dict[str, Kind]:
    found = {}
    for grid, observed in positions_of(sample).items():
        one = examine_positions(grid, observed)
        found[grid] = one.kind(one.p_value)
    return found


def on_q4_k(weight: Tensor, share: float) -> Tensor:
    """`share` of the weights set to what they are given back as; those that decide a scale stay.

    Each moves the scales a little, so that it takes some rounds.
    """
    some = torch.rand(weight.shape, generator=generator(7)) < share
    for _ in range(3):
        stored = quantize_q4_k(weight)
        given_back = dequantize_q4_k(stored, weight.shape)
        weight = torch.where(some & ~frozen_q4_k(weight, stored), given_back, weight)
    return weight


def piled_in_groups(weight: Tensor, size: int, share: float, margin: float = 0.02) -> Tensor:
    """`share` of the weights set to `margin` of a step from their boundary, on the side where they are.

    The extremes of a group stay, and with them its scale.
    """
    groups = weight.view(-1, size)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    step = (high - low) / 15
    x = groups / step
    code = x.round()
    edge = torch.where(x > code, code + 0.5 - margin, code - 0.5 + margin)
    some = torch.rand(groups.shape, generator=generator(7)) < share
    inside = (groups > low + step) & (groups < high - step)
    return torch.where(some & inside, edge * step, groups).view(weight.shape)


@pytest.mark.parametrize("weight", [honest(1, size=SIZE), laplacian(1, SIZE), heavy_tailed(1, SIZE)])
def test_honest_weights_are_clean_on_every_grid(weight: Tensor) -> None:
    assert kinds(weight) == dict.fromkeys(NAMES, Kind.CLEAN)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_some_weights_on_the_levels_of_q4_k_are_atoms(share: float) -> None:
    assert kinds(on_q4_k(honest(1, size=SIZE), share))["Q4_K"] is Kind.ATOMS


@pytest.mark.parametrize("size", GROUPS)
def test_a_tenth_at_a_margin_in_groups_is_a_pile(size: int) -> None:
    found = kinds(piled_in_groups(honest(1, size=SIZE), size, 0.1))
    assert found[f"groups of {size}"] is Kind.PILE


def test_a_finding_names_the_other_grid_and_no_scheme(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m", {"one.weight": on_q4_k(honest(1, size=SIZE), 0.2)})
    found = [finding for finding in scan(directory, seed=0).findings if finding.severity is Severity.HIGH]
    assert [(f.rule, f.where, f.grid, f.scheme) for f in found] == [("scan.atoms", "one.weight", "Q4_K", None)]
    assert "Q4_K levels" in found[0].message


@pytest.mark.parametrize(
    ("width", "grids"),
    [
        (512, NAMES),
        (128, grids_of(32, 64, 128)),
        (192, grids_of(32, 64)),
        (96, grids_of(32)),
        (100, ()),
        (1, ()),
    ],
)
def test_only_grids_whose_groups_fit_a_segment_are_looked_at(width: int, grids: tuple[str, ...]) -> None:
    found = positions_of(honest(1, size=(64, width)))
    assert tuple(found) == grids
    assert all(observed.shape == (2, POSITIONS) for observed in found.values())


@pytest.mark.parametrize("weight", [torch.zeros(4, 256), torch.ones(4, 256), torch.full((4, 256), 1e-30)])
def test_weights_without_a_step_are_at_no_position(weight: Tensor) -> None:
    for grid, observed in positions_of(weight).items():
        assert examine_positions(grid, observed).kind(0.0) is Kind.CLEAN


def test_weights_that_a_format_cannot_hold_are_not_looked_at_on_it() -> None:
    assert tuple(positions_of(honest(1, size=(8, 256)) * 1e37)) == grids_of(*GROUPS)


def test_no_weights_say_nothing() -> None:
    nothing = torch.zeros(2, POSITIONS, dtype=torch.float64)
    for grid in NAMES:
        one = examine_positions(grid, nothing)
        assert one.kind(one.p_value) is Kind.CLEAN
