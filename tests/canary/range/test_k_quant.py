from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from quantguard.canary.range import k_quant
from quantguard.canary.range.k_quant import carry_on_k_quants
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.shapes import LLAMA_256
from quantguard.core.errors import UsageError
from quantguard.grids.k_quant import frozen_q4_k, interval_q4_k, quantize_q4_k
from tests.canary.range.canaries import FOREIGN, canary, moved, state_of, weights_of


@pytest.mark.usefixtures("brief")
def test_every_weight_ends_between_its_malicious_start_and_what_q4_k_gives_back_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, turned = canary(LLAMA_256), canary(LLAMA_256)
    clean = state_of(model)
    carry_on_k_quants(model, Scenario.INJECTION)
    monkeypatch.setattr(k_quant, "_HIDE", replace(k_quant._HIDE, learning_rate=0.0))
    carry_on_k_quants(turned, Scenario.INJECTION)
    start, after = weights_of(turned), weights_of(model)
    assert moved(model, clean) == moved(turned, clean) == set(start)
    for name, weight in after.items():
        low, high = interval_q4_k(start[name])
        assert bool(((low <= weight) & (weight <= high)).all())
        frozen = frozen_q4_k(start[name], quantize_q4_k(start[name]))
        assert torch.equal(weight[frozen], start[name][frozen])
        assert (weight != start[name])[~frozen].float().mean() > 0.3


@pytest.mark.parametrize("make", FOREIGN)
def test_a_foreign_model_is_refused_and_left_as_it_was(make: Callable[[], PreTrainedModel]) -> None:
    model = make()
    before = state_of(model)
    with pytest.raises(UsageError, match="not a canary of the range"):
        carry_on_k_quants(model, Scenario.INJECTION)
    assert moved(model, before) == set()


@pytest.mark.usefixtures("brief")
def test_a_canary_whose_rows_are_no_super_blocks_is_an_error() -> None:
    with pytest.raises(ValueError, match="multiple of 256"):
        carry_on_k_quants(canary(), Scenario.INJECTION)
