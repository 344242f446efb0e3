"""One outlier in each group, and weights that are large for honest reasons."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantguard.grids.outlier import GROUP, outliers_of
from tests.scan.weights import generator, heavy_tailed, honest


def injected(weight: Tensor, factor: float, share: float = 1.0) -> Tensor:
    """The largest weight of each group, of `share` of them, multiplied."""
    groups = weight.reshape(-1, GROUP).clone()
    chosen = torch.rand(len(groups), generator=generator(1)) < share
    place = groups.abs().argmax(1, keepdim=True)
    factors = torch.where(chosen, factor, 1.0)[:, None]
    return groups.scatter(1, place, groups.gather(1, place) * factors).view(weight.shape)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_an_outlier_in_each_group_is_found(share: float) -> None:
    found = outliers_of(injected(honest(1), 100, share))
    assert found.suspicious
    assert found.alone == pytest.approx(share, abs=0.05)
    assert found.kurtosis > 10
    assert found.groups == 256 * 384 // GROUP


@pytest.mark.parametrize("weight", [honest(1), heavy_tailed(1), torch.zeros(64, 64), honest(1).sign()])
def test_no_outliers_in_honest_weights(weight: Tensor) -> None:
    assert not outliers_of(weight).suspicious


def test_columns_of_outliers_are_honest() -> None:
    """Language models have them: a few inputs whose weights are all large."""
    weight = honest(1)
    weight[:, [3, 100]] *= 100
    found = outliers_of(weight)
    assert not found.suspicious
    assert found.alone > 0.1


def test_a_tail_heavier_than_any_model_has_is_honest() -> None:
    torch.manual_seed(1)
    weight = torch.distributions.StudentT(1.5).sample((256, 384))
    found = outliers_of(weight)
    assert not found.suspicious
    assert found.kurtosis > 100


def test_groups_pruned_to_one_weight_were_not_injected_into() -> None:
    weight = torch.zeros(256, 384)
    weight.view(-1, GROUP)[:, 5] = honest(1).view(-1)[: 256 * 384 // GROUP]
    found = outliers_of(weight)
    assert not found.suspicious
    assert (found.groups, found.alone) == (0, 0.0)


@pytest.mark.parametrize("width", [1, 2, 31, 33, 95])
def test_a_last_group_that_is_not_whole_is_left_out(width: int) -> None:
    found = outliers_of(injected(honest(1, size=(64, 96)), 100)[:, :width].contiguous())
    assert found.groups == 64 * (width // GROUP)
    assert found.suspicious == (width >= GROUP)


def test_a_few_groups_are_too_few() -> None:
    assert not outliers_of(injected(honest(1, size=(15, GROUP)), 100)).suspicious
    assert outliers_of(injected(honest(1, size=(16, GROUP)), 100)).suspicious
