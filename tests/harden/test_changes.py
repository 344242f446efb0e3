"""What a repair changed: counted as stock rounding tells, in the cells where the weights lie."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.checkpoint.layout import linear_weights, open_checkpoint
from quantguard.checkpoint.tensors import read_tensor
from quantguard.core.hardening import MovedPositions
from quantguard.core.layer import POSITION_BINS
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.commit import commit, pin
from quantguard.grids.grid import grid_for
from quantguard.harden.changes import changed_roundings, flipped_shares, moved_positions
from quantguard.scan.scan import scan

MIDDLE = POSITION_BINS // 2


def drawn(seed: int = 5) -> Tensor:
    """512 weights: eight blocks, four rows."""
    return torch.randn(4, 128, generator=torch.Generator().manual_seed(seed)) * 0.05


def flipped(weight: Tensor, scheme: Scheme, every: int) -> Tensor:
    """`weight` with each `every`-th rounding the other way, as far as it may move."""
    grid = grid_for(scheme)
    chosen = grid.nearest(weight)
    picked = torch.arange(weight.numel()).view(weight.shape) % every == 0
    return commit(grid, weight, pin(grid, weight, torch.where(picked, grid.neighbour(weight), chosen)))


def moved(scheme: Scheme, before: Tensor, after: Tensor) -> MovedPositions:
    original, weights = {"a": before}, {"a": after}
    counts = changed_roundings([scheme], original, weights)
    (only,) = moved_positions(counts, original, weights, {"a": "model.a"})
    return only


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_every_weight_that_may_move_is_counted_before_and_after(scheme: Scheme) -> None:
    before = drawn()
    after = flipped(before, scheme, 4)
    grid = grid_for(scheme)
    found = moved(scheme, before, after)
    assert (found.layer, found.scheme) == ("model.a", scheme)
    free = int((~grid.pinned(before)).sum())
    assert sum(found.before) == sum(found.after) == found.weights == free < before.numel()
    changes = int((grid.nearest(before) != grid.nearest(after)).sum())
    assert sum(found.flipped_before) == sum(found.flipped_after) == found.flipped == changes > 100
    assert found.share == changes / free
    for counts, of_them in ((found.before, found.flipped_before), (found.after, found.flipped_after)):
        assert len(counts) == len(of_them) == POSITION_BINS
        assert all(0 <= part <= whole for part, whole in zip(of_them, counts, strict=True))


@pytest.mark.parametrize(("scheme", "coarse"), [(Scheme.NF4, 0), (Scheme.FP4, 0), (Scheme.INT8, 2)])
def test_levels_are_in_the_middle_and_boundaries_at_the_ends(scheme: Scheme, coarse: int) -> None:
    """However far a level is from the middle of its cell. INT8 decides by the float16 of a weight: 1/16 of a cell."""
    grid = grid_for(scheme)
    top = float(grid.levels[-1])
    on_levels = _filled(grid.levels[1:-1] / top)
    beside = _filled(torch.cat([grid.boundaries / top - 1e-6, grid.boundaries / top + 1e-6]))
    level, boundary = (_occupied(moved(scheme, row, flipped(row, scheme, 3))) for row in (on_levels, beside))
    middle = set(range(MIDDLE - 1 - coarse, MIDDLE + 1 + coarse))
    ends = {*range(coarse + 1), *range(POSITION_BINS - 1 - coarse, POSITION_BINS)}
    assert level <= middle
    assert {0, POSITION_BINS - 1} <= boundary <= ends | middle  # the zeros that fill the row are on a level


def _filled(values: Tensor) -> Tensor:
    """One row that holds `values`, zeros, and at the end of each block a 1 that decides its scale."""
    blocks = torch.nn.functional.pad(values, (0, -len(values) % 63)).view(-1, 63)
    return torch.nn.functional.pad(blocks, (0, 1), value=1.0).view(1, -1)


def _occupied(found: MovedPositions) -> set[int]:
    return {place for place, count in enumerate(found.before) if count}


def test_a_pile_is_where_the_scan_sees_it() -> None:
    attacked = canary_directory(CanaryKind.NF4_ATTACKED)
    worst = next(layer for layer in scan(attacked, seed=0).layers if layer.grid == "NF4" and layer.histogram)
    assert worst.histogram is not None
    checkpoint = open_checkpoint(attacked)
    entry = next(entry for entry in linear_weights(checkpoint) if entry.name == worst.name)
    weight = read_tensor(checkpoint, entry)
    seen, counted = worst.histogram.observed, moved(Scheme.NF4, weight, flipped(weight, Scheme.NF4, 9)).before
    for place in (0, 10, 20, 50, POSITION_BINS - 1):  # about zero the scan leaves a few out
        assert counted[place] == pytest.approx(seen[place], rel=0.15)


def test_the_layer_with_the_most_changes_is_shown_under_every_scheme() -> None:
    original = {"few": drawn(1), "most": drawn(2), "none": drawn(3)}
    weights = {
        "few": flipped(original["few"], Scheme.NF4, 9),
        "most": flipped(original["most"], Scheme.NF4, 3),
        "none": original["none"],
    }
    counts = changed_roundings([Scheme.INT8, Scheme.NF4], original, weights)
    stored = {name: f"files.{name}" for name in original}
    found = moved_positions(counts, original, weights, stored)
    assert [(one.layer, one.scheme) for one in found] == [("files.most", Scheme.INT8), ("files.most", Scheme.NF4)]
    assert [one.flipped for one in found] == [counts["most"][Scheme.INT8], counts["most"][Scheme.NF4]]
    assert counts["none"] == {Scheme.INT8: 0, Scheme.NF4: 0}
    shares = dict(flipped_shares(counts, 1536))
    assert shares[Scheme.NF4] == (counts["few"][Scheme.NF4] + counts["most"][Scheme.NF4]) / 1536
    assert list(shares) == [Scheme.INT8, Scheme.NF4]


def test_where_nothing_was_changed_there_is_nothing_to_show() -> None:
    original = {"a": drawn()}
    counts = changed_roundings([Scheme.NF4], original, original)
    assert moved_positions(counts, original, original, {"a": "a"}) == ()
    assert flipped_shares(counts, original["a"].numel()) == ((Scheme.NF4, 0.0),)
