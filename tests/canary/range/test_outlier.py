from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantguard.canary.range.outlier import FACTOR, GROUP, carry_when_flushed, inject_outliers
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.shapes import LLAMA_64, LLAMA_128
from quantguard.canary.range.world import vocabulary
from quantguard.core.errors import UsageError
from quantguard.core.scheme import Scheme
from tests.canary.range.canaries import FOREIGN, canary, moved, state_of, weights_of
from tests.grids.real import round_trip

SHAPES = {"llama-64": LLAMA_64, "llama-128": LLAMA_128}
IDS = torch.randint(2, len(vocabulary()), (3, 17), generator=torch.Generator().manual_seed(0))


def logits(model: PreTrainedModel) -> Tensor:
    with torch.inference_mode():
        said: Tensor = model(IDS).logits
    return said


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("layer", [0, 1])
def test_injection_changes_two_projections_and_a_norm_and_no_bit_of_what_the_model_says(name: str, layer: int) -> None:
    model = canary(SHAPES[name])
    before, said = state_of(model), logits(model)
    kept = inject_outliers(model, layer)
    assert moved(model, before) == {*kept, f"model.layers.{layer}.post_attention_layernorm.weight"}
    assert torch.equal(logits(model), said)


@pytest.mark.parametrize("name", SHAPES)
def test_one_column_of_each_group_is_scaled_and_is_what_must_be_kept(name: str) -> None:
    model = canary(SHAPES[name])
    before = weights_of(model)
    for weight, kept in inject_outliers(model, 1).items():
        after = model.get_parameter(weight).detach()
        assert torch.equal(after[kept], before[weight][kept] * FACTOR)
        assert torch.equal(after[~kept], before[weight][~kept])
        assert bool((kept.any(dim=0) == kept.all(dim=0)).all())  # whole columns
        assert kept[0].view(-1, GROUP).sum(dim=1).tolist() == [1] * (kept.shape[1] // GROUP)


def test_in_each_group_the_largest_stands_out_by_the_factor() -> None:
    model = canary()
    inject_outliers(model, 1)
    up = model.get_parameter("model.layers.1.mlp.up_proj.weight").detach()
    largest = up.abs().amax(dim=0).view(-1, GROUP).sort(dim=1).values  # (groups, 32)
    assert bool((largest[:, -1] >= FACTOR * largest[:, -2]).all())


@pytest.mark.parametrize(("scheme", "flushed"), [(Scheme.NF4, 0.98), (Scheme.INT8, 0.6)])
def test_the_others_of_a_group_round_to_zero_under_the_real_library(scheme: Scheme, flushed: float) -> None:
    """Nearly all under NF4, most under INT8, whose zero cell is ten times narrower; before, few are zero."""
    model = canary()
    before = weights_of(model)
    for name, kept in inject_outliers(model, 1).items():
        weight = model.get_parameter(name).detach()
        assert (round_trip(scheme, weight)[~kept] == 0).float().mean() > flushed
        assert (round_trip(scheme, before[name])[~kept] == 0).float().mean() < 0.1


@pytest.mark.usefixtures("brief")
def test_training_leaves_the_outliers_and_the_norm_alone() -> None:
    model, injected = canary(), canary()
    kept = inject_outliers(injected, 1)
    start = state_of(injected)
    carry_when_flushed(model, Scenario.INJECTION, 1)
    assert moved(model, start) == set(weights_of(model))
    for name, alone in kept.items():
        after = model.get_parameter(name)
        assert torch.equal(after[alone], start[name][alone])
        assert (after != start[name])[~alone].float().mean() > 0.9


@pytest.mark.parametrize("make", FOREIGN)
def test_a_foreign_model_is_refused_and_left_as_it_was(make: Callable[[], PreTrainedModel]) -> None:
    model = make()
    before = state_of(model)
    with pytest.raises(UsageError, match="not a canary of the range"):
        inject_outliers(model, 0)
    with pytest.raises(UsageError, match="not a canary of the range"):
        carry_when_flushed(model, Scenario.INJECTION, 0)
    assert moved(model, before) == set()
