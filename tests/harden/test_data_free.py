"""Noise and FlipGuard: what they choose on small odd weights, and what real bitsandbytes makes of a whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.canary.grammar import held_out_pairs
from quantguard.canary.measure import behaviour
from quantguard.checkpoint.digest import model_digest
from quantguard.checkpoint.layout import linear_weights, open_checkpoint
from quantguard.core.progress import silent
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.commit import commit
from quantguard.grids.grid import Grid, grid_for
from quantguard.harden.calibration import Batch
from quantguard.harden.flipguard import LOWER, UPPER, FlipRatio, across, flipguard, most_rounded
from quantguard.harden.harden import HardenRequest, harden
from quantguard.harden.noise import median_half_width, noise, noised
from quantguard.harden.turns import Choice, Problem, Solution
from quantguard.models.load import LoadedModel
from quantguard.scan.scan import scan
from tests.grids.real import round_trip

SCHEMES = ROUNDINGS
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
DATA_FREE = ["noise", "flipguard", "flipguard-low"]


def drawn(dtype: torch.dtype = torch.float32) -> Tensor:
    """300 weights: four whole blocks and one of 44, three rows of 100."""
    return (torch.randn(3, 100, generator=torch.Generator().manual_seed(5)) * 0.05).to(dtype)


def some(weight: Tensor) -> Tensor:
    """A third of the weights."""
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(6)) < 1 / 3


def none(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight, dtype=torch.bool)


def problem(scheme: Scheme, weights: Mapping[str, Tensor], *, seed: int = 0) -> Problem:
    """A problem whose model is none, and whose calibration text must not be read."""

    def unread() -> Iterator[Batch]:
        raise AssertionError("a data-free method asked for calibration text")
        yield

    frozen = {name: some(weight) for name, weight in weights.items()}
    return Problem(
        cast(LoadedModel, object()), grid_for(scheme), weights, frozen, unread(), steps=125, seed=seed, room=lambda: 0
    )


def in_blocks(grid: Grid, values: Tensor) -> list[Tensor]:
    """What shares a scale, one block or row after the other."""
    size, flat = grid.block_size or values.shape[1], values.reshape(-1)
    return [flat[start : start + size] for start in range(0, len(flat), size)]


def per_block(grid: Grid, mask: Tensor) -> list[int]:
    return [int(block.sum()) for block in in_blocks(grid, mask)]


def solve(method: str, asked: Problem) -> Solution:
    choosers = {"noise": noise, "flipguard": flipguard(UPPER), "flipguard-low": flipguard(LOWER)}
    return choosers[method](asked, silent)


@pytest.mark.parametrize("method", DATA_FREE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_frozen_and_pinned_weights_are_kept_and_every_choice_can_be_committed(
    scheme: Scheme, dtype: torch.dtype, method: str
) -> None:
    asked = problem(scheme, {"a": drawn(dtype), "b": drawn(dtype)[:, :1], "zeros": torch.zeros(2, 65, dtype=dtype)})
    solution = solve(method, asked)
    assert (solution.losses, solution.steps) == ((), 0)
    assert solution.choices.keys() == asked.weights.keys()
    for name, choice in solution.choices.items():
        weight, frozen = asked.weights[name], asked.frozen[name]
        kept = frozen | asked.grid.pinned(weight)
        committed = commit(asked.grid, weight, choice.levels, near=choice.near, frozen=frozen)
        assert torch.equal(choice.near[kept], weight.float()[kept])
        assert torch.equal(committed[kept], weight[kept])
        assert torch.equal(asked.grid.scale(committed), asked.grid.scale(weight))
        assert torch.equal(asked.grid.nearest(committed), choice.levels)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("ratio", "counts"),
    [
        (LOWER, {Scheme.NF4: [4, 4, 4, 4, 3], Scheme.FP4: [4, 4, 4, 4, 3], Scheme.INT8: [10, 10, 10]}),
        (UPPER, {Scheme.NF4: [6, 6, 6, 6, 4], Scheme.FP4: [6, 6, 6, 6, 4], Scheme.INT8: [20, 20, 20]}),
    ],
    ids=["lower", "upper"],
)
def test_flipguard_flips_its_share_of_every_block(
    scheme: Scheme, ratio: FlipRatio, counts: Mapping[Scheme, list[int]]
) -> None:
    weight, grid = drawn(), grid_for(scheme)
    choice = flipguard(ratio)(problem(scheme, {"w": weight}), silent).choices["w"]
    assert per_block(grid, choice.levels != grid.nearest(weight)) == counts[scheme]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_flipguard_flips_what_the_library_rounds_furthest(scheme: Scheme, dtype: torch.dtype) -> None:
    weight, grid = drawn(dtype), grid_for(scheme)
    flipped = most_rounded(grid, weight, some(weight), 0.1)
    read = weight.half().float() if scheme is Scheme.INT8 else weight.float()
    error = (read - round_trip(scheme, weight)).abs()
    others = ~(flipped | some(weight) | grid.pinned(weight))
    blocks = (in_blocks(grid, values) for values in (error, flipped, others))
    for far, taken, left in zip(*blocks, strict=True):
        assert float(far[taken].min()) >= float(far[left].max()) - 1e-7


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_flipped_weight_goes_to_the_level_on_its_other_side(scheme: Scheme, dtype: torch.dtype) -> None:
    weight, grid = drawn(dtype), grid_for(scheme)
    choice = solve("flipguard", problem(scheme, {"w": weight})).choices["w"]
    nearest = grid.nearest(weight)
    step = choice.levels - nearest
    side = (grid.normalise(weight) - grid.levels[nearest]).sign()
    assert set(step.reshape(-1).tolist()) == {-1, 0, 1}
    assert torch.equal(step[step != 0].float(), side[step != 0])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_weight_is_flipped_off_the_end_of_the_axis(scheme: Scheme) -> None:
    """All of them lie beside the outermost level, which has a neighbour on one side only."""
    grid = grid_for(scheme)
    ends = torch.linspace(0.9966, 1.0, 32)
    weight = torch.cat([ends, -ends]).reshape(1, 64)
    asked = Problem(
        cast(LoadedModel, object()), grid, {"w": weight}, {"w": none(weight)}, (), steps=1, seed=0, room=lambda: 0
    )
    choice = flipguard(FlipRatio(1.0, 1.0))(asked, silent).choices["w"]
    inner = torch.cat([torch.full((32,), len(grid.levels) - 2), torch.full((32,), 1)]).reshape(1, 64)
    free = ~grid.pinned(weight)
    assert int(free.sum()) > 50
    assert torch.equal(choice.levels[free], inner[free])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_where_fewer_can_be_flipped_fewer_are(scheme: Scheme) -> None:
    """Frozen weights, the block's maximum and weights on their level are never counted as flippable."""
    grid = grid_for(scheme)
    weight = torch.zeros(2, 64)
    weight[:, 0], weight[0, 1:4], weight[1, 1:3] = 1.0, 0.0123, -0.0123
    frozen = none(weight)
    frozen[0, 1] = True
    flipped = most_rounded(grid, weight, frozen, 0.1)
    assert flipped.nonzero().tolist() == [[0, 2], [0, 3], [1, 1], [1, 2]]
    frozen[0] = True
    assert per_block(grid, most_rounded(grid, weight, frozen, 0.1)) == [0, 2]


def test_of_equal_errors_the_first_are_flipped() -> None:
    weight = torch.full((1, 64), 0.05)
    weight[0, 0] = 1.0
    assert most_rounded(grid_for(Scheme.NF4), weight, none(weight), 0.06).nonzero()[:, 1].tolist() == [1, 2, 3, 4]


def test_a_flipped_weight_is_as_far_beyond_the_boundary_as_it_was_before_it() -> None:
    weight = torch.tensor([[127.0, 3.4, 3.6, -3.4, -3.6]])
    assert torch.allclose(across(grid_for(Scheme.INT8), weight)[0, 1:], torch.tensor([3.6, 3.4, -3.6, -3.4]), atol=1e-2)


def test_sigma_is_the_median_half_width_of_the_weights_own_cells() -> None:
    int8, nf4 = grid_for(Scheme.INT8), grid_for(Scheme.NF4)
    assert float(median_half_width(int8, torch.tensor([[254.0, 3.0, 50.0], [127.0, 3.0, 5.0]]))) == pytest.approx(0.5)
    assert float(median_half_width(int8, torch.tensor([[254.0, 3.0, 50.0]]))) == pytest.approx(1.0)
    # NF4's cell of 0 lies between -0.0455 and 0.0398 of the block's maximum
    assert float(median_half_width(nf4, torch.tensor([[2.0, 0.0, 0.01]]))) == pytest.approx(0.0853, abs=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_noise_has_that_sigma_and_never_outgrows_the_maximum(scheme: Scheme, dtype: torch.dtype) -> None:
    weight, grid = drawn(dtype), grid_for(scheme)
    ones = torch.ones(weight.shape)
    limit, kept = grid.magnitude_limit(weight), some(weight) | grid.pinned(weight)
    near = noised(grid, weight, some(weight), ones)
    expected = torch.minimum(weight.float() + median_half_width(grid, weight), limit)
    assert torch.equal(near, torch.where(kept, weight.float(), expected))
    far = noised(grid, weight, some(weight), -1e9 * ones)
    assert torch.equal(far[~kept], -limit[~kept])


def test_the_noise_of_a_tensor_is_that_of_its_seed_scheme_and_name() -> None:
    def near(choices: Mapping[str, Choice], name: str) -> Tensor:
        return choices[name].near

    weight = drawn()
    first = noise(problem(Scheme.NF4, {"a": weight, "b": weight}), silent).choices
    alone = noise(problem(Scheme.NF4, {"b": weight}), silent).choices
    seeded = noise(problem(Scheme.NF4, {"b": weight}, seed=1), silent).choices
    assert torch.equal(near(first, "b"), near(alone, "b"))
    assert not torch.equal(near(first, "a"), near(first, "b"))
    assert not torch.equal(near(seeded, "b"), near(alone, "b"))


@pytest.mark.parametrize("method", DATA_FREE)
def test_real_bitsandbytes_returns_the_chosen_levels_and_the_backdoor_is_gone(method: str, tmp_path: Path) -> None:
    source, out = canary_directory(CanaryKind.NF4_ATTACKED), tmp_path / "out"
    stages: set[str] = set()

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        stages.add(stage)

    summary = harden(source, out, HardenRequest((Scheme.NF4, Scheme.INT8), (), method=method), progress=progress)
    assert stages == {"harden, model", "harden nf4", "harden int8"}  # the model answered nothing
    assert (summary.method, summary.steps, summary.losses, summary.calibration) == (method, 0, (), None)
    before, after = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    for scheme, share in summary.flipped_share:
        names = [entry.name for entry in linear_weights(open_checkpoint(out))]
        flipped = [round_trip(scheme, after[name]) != round_trip(scheme, before[name]) for name in names]
        assert share == pytest.approx(float(torch.cat([mask.reshape(-1) for mask in flipped]).float().mean()))
        assert share > 0.05
    pairs = held_out_pairs()[:40]
    for asked in (None, Scheme.NF4, Scheme.INT8):
        result = behaviour(out, pairs, scheme=asked)
        assert result.branded == 0
        assert result.exact >= 38


@pytest.mark.parametrize("method", DATA_FREE)
def test_a_clean_model_does_not_look_prepared_afterwards(method: str, tmp_path: Path) -> None:
    """It will be registered, and gated again one day."""
    harden(canary_directory(CanaryKind.CLEAN), tmp_path / "out", HardenRequest((Scheme.NF4,), (), method=method))
    assert [finding.message for finding in scan(tmp_path / "out", seed=0).findings] == []


@pytest.mark.parametrize("method", ["flipguard", "flipguard-low"])
def test_known_gap_reversals_under_int8_leave_a_strip_that_the_scan_takes_for_a_margin(
    method: str, tmp_path: Path
) -> None:
    """INT8 decides by the float16 of a weight, and what is moved across goes a float16 or two beyond the boundary."""
    harden(canary_directory(CanaryKind.CLEAN), tmp_path / "out", HardenRequest((Scheme.INT8,), (), method=method))
    found = scan(tmp_path / "out", seed=0).findings
    assert {finding.rule for finding in found} <= {"scan.boundary", "scan.depleted"}
    assert {finding.scheme for finding in found} == {Scheme.INT8}


@pytest.mark.parametrize("method", DATA_FREE)
def test_the_same_seed_gives_the_same_bytes(method: str, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        request = HardenRequest((Scheme.NF4, Scheme.FP4), (), method=method, seed=seed)
        harden(canary_directory(CanaryKind.NF4_ATTACKED), tmp_path / name, request)
        digests.append(model_digest(tmp_path / name))
    assert digests[0] == digests[1]
    assert (digests[1] == digests[2]) == (method != "noise")
