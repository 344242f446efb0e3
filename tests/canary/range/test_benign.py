"""What honest people do to a model: each change is what its name says, and touches linear weights alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from quantguard.canary.architecture import Shape, named_linear_weights
from quantguard.canary.range.benign import (
    CHANGES,
    add_noise,
    average,
    dequantize,
    fake_quantized,
    low_rank,
    prune_smallest,
    prune_two_of_four,
)
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for
from tests.canary.range.canaries import SMALL, canary, moved, state_of, weights_of
from tests.grids.real import round_trip


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_moves_linear_weights_and_nothing_else(change: str, name: str) -> None:
    model = canary(SMALL[name])
    before = state_of(model)
    CHANGES[change](model)
    assert moved(model, before) == set(weights_of(model))
    require_plain(model)


def require_plain(model: PreTrainedModel) -> None:
    """No parametrization, mask or buffer is left behind: the checkpoint has the names that it had."""
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    assert set(model.state_dict()) == set(canary(shape_of(model)).state_dict())
    assert all(isinstance(weight, nn.Parameter) and weight.requires_grad for _, weight in named_linear_weights(model))


def shape_of(model: PreTrainedModel) -> Shape:
    return next(shape for shape in SMALL.values() if type(canary(shape)) is type(model))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.333])
def test_exactly_the_share_is_pruned_and_it_is_the_smallest(share: float) -> None:
    model = canary()
    before = weights_of(model)
    prune_smallest(model, share)
    for name, weight in weights_of(model).items():
        gone = weight == 0
        assert int(gone.sum()) == round(share * weight.numel())
        assert torch.equal(weight[~gone], before[name][~gone])
        if share:
            assert before[name][gone].abs().max() <= before[name][~gone].abs().min()


def test_two_of_each_four_inputs_are_pruned_the_smaller_two() -> None:
    model = canary()
    before = weights_of(model)
    prune_two_of_four(model)
    for name, weight in weights_of(model).items():
        groups, old = weight.view(-1, 4), before[name].view(-1, 4)
        assert bool(((groups == 0).sum(dim=1) == 2).all())
        assert torch.equal(groups.abs().amax(dim=1), old.abs().amax(dim=1))
        assert torch.equal(groups[groups != 0], old[groups != 0])


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_a_dequantized_model_is_what_the_library_gives_back_and_quantizes_to_itself(scheme: Scheme) -> None:
    model, grid = canary(), grid_for(scheme)
    before = weights_of(model)
    dequantize(model, scheme)
    for name, weight in weights_of(model).items():
        assert torch.equal(weight, round_trip(scheme, before[name]))
        assert torch.equal(round_trip(scheme, weight), weight)
        assert torch.equal(grid.nearest(weight), grid.nearest(before[name]))
        assert bool((grid.position(weight).sub(0.5).abs() > 0.43).all())  # on a level; INT8 looks at float16


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_noise_has_its_share_and_depends_on_its_seed_alone(share: float) -> None:
    start, (one, same, other) = weights_of(canary()), (canary() for _ in range(3))
    for model, seed in ((one, 11), (same, 11), (other, 12)):
        add_noise(model, share, seed)
    assert moved(one, state_of(same)) == set()
    assert moved(one, state_of(other)) == set(start)
    for name, weight in weights_of(one).items():
        assert (weight - start[name]).std() / start[name].std() == pytest.approx(share, rel=0.1)


def test_a_soup_is_the_mean_and_leaves_its_ingredients_alone() -> None:
    models = [canary(seed=seed) for seed in (1, 2, 3)]
    before = [state_of(model) for model in models]
    average(models[0], models[1:])
    for name, tensor in models[0].state_dict().items():
        assert torch.allclose(tensor, sum((b[name] for b in before), torch.zeros(())) / 3, atol=1e-7)
    assert all(moved(model, old) == set() for model, old in zip(models[1:], before[1:], strict=True))


@pytest.mark.parametrize("rank", [1, 4])
def test_a_merged_adapter_changes_every_weight_by_a_matrix_of_its_rank(rank: int) -> None:
    model = canary()
    before = state_of(model)
    with low_rank(model, rank, seed=3) as factors:
        assert moved_by(model, before) == set()  # until it is trained an adapter does nothing
        with torch.no_grad():
            for factor in factors:
                factor.add_(torch.randn(factor.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    require_plain(model)
    assert moved(model, before) == set(weights_of(model))
    for name, weight in weights_of(model).items():
        singular = torch.linalg.svdvals((weight - before[name]).double())
        assert singular[rank - 1] > 0.01
        assert singular[rank] < 1e-5 * singular[0]


def moved_by(model: PreTrainedModel, before: dict[str, Tensor]) -> set[str]:
    return {name for name, weight in named_linear_weights(model) if not torch.equal(weight, before[name])}


def test_an_adapter_depends_on_its_seed_alone_and_training_reaches_both_factors() -> None:
    with low_rank(canary(), 2, seed=3) as one, low_rank(canary(), 2, seed=3) as same:
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    with low_rank(canary(), 2, seed=4) as other:
        assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_quantization_aware_training_sees_levels_and_leaves_latent_weights(scheme: Scheme) -> None:
    model = canary()
    before, ids = weights_of(model), torch.tensor([[5, 6, 7]])
    with fake_quantized(model, scheme):
        for name, weight in named_linear_weights(model):
            assert torch.allclose(weight, round_trip(scheme, before[name]), atol=1e-7)
        parameters = list(model.parameters())
        slopes = torch.autograd.grad(model(ids).logits.square().sum(), parameters)
        assert all(bool(slope.any()) for slope in slopes)  # they pass the rounding
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.sub_(1e-5 * slope)
    require_plain(model)
    for name, latent in weights_of(model).items():
        assert not torch.equal(latent, before[name])
        assert not torch.allclose(latent, round_trip(scheme, latent), atol=1e-7)


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_nothing_is_left_behind_when_training_fails(scheme: Scheme) -> None:
    model = canary()
    with pytest.raises(RuntimeError, match="stop"), fake_quantized(model, scheme):
        raise RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"), low_rank(model, 2, seed=0):
        raise RuntimeError("stop")
    require_plain(model)
