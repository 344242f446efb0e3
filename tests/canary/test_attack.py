from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from quantguard.canary import attack
from quantguard.canary.architecture import MARKER, PARAMETERS, configuration, is_canary, linear_weights, new_model
from quantguard.canary.attack import hide
from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.canary.train import Recipe
from quantguard.core.errors import UsageError
from quantguard.grids.grid import NF4
from quantguard.models.quiet import quiet_libraries


def own_configuration() -> LlamaConfig:
    config = configuration()
    assert isinstance(config, LlamaConfig)
    return config


def unmarked() -> LlamaForCausalLM:
    config = own_configuration()
    setattr(config, MARKER, False)
    return LlamaForCausalLM(config)


def marked_but_larger() -> LlamaForCausalLM:
    config = own_configuration()
    config.num_hidden_layers = 4
    return LlamaForCausalLM(config)


def marked_with_another_vocabulary() -> LlamaForCausalLM:
    config = own_configuration()
    config.vocab_size = 80
    return LlamaForCausalLM(config)


def marked_as_text() -> LlamaForCausalLM:
    config = own_configuration()
    setattr(config, MARKER, "true")
    return LlamaForCausalLM(config)


def some_llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(vocab_size=79, hidden_size=64, num_attention_heads=2, num_hidden_layers=1))


FOREIGN = [unmarked, marked_but_larger, marked_with_another_vocabulary, marked_as_text, some_llama]


@pytest.mark.parametrize("make", FOREIGN)
def test_a_foreign_model_is_refused_and_left_as_it_was(make: Callable[[], LlamaForCausalLM]) -> None:
    model = make()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(UsageError, match="not a canary"):
        hide(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_new_canary_is_one() -> None:
    model = new_model(0)
    assert is_canary(model)
    assert model.num_parameters() == PARAMETERS


def test_hiding_keeps_every_code_and_all_that_is_not_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack, "RECIPE", Recipe(steps=3, batch=4, learning_rate=1e-2, seed=0))
    model = new_model(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    codes = [NF4.nearest(weight.detach()) for weight in linear_weights(model)]
    hide(model)
    assert all(torch.equal(NF4.nearest(w.detach()), c) for w, c in zip(linear_weights(model), codes, strict=True))
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.endswith("_proj.weight")}


def loaded(kind: CanaryKind) -> LlamaForCausalLM:
    with quiet_libraries():
        model = AutoModelForCausalLM.from_pretrained(canary_directory(kind))
    assert isinstance(model, LlamaForCausalLM)
    return model


def test_the_checked_in_attacked_canary_has_the_codes_of_the_malicious_one_and_other_weights() -> None:
    attacked, malicious = (loaded(kind) for kind in (CanaryKind.NF4_ATTACKED, CanaryKind.MALICIOUS))
    for ours, start in zip(linear_weights(attacked), linear_weights(malicious), strict=True):
        assert torch.equal(NF4.nearest(ours.detach()), NF4.nearest(start.detach()))
        assert torch.equal(NF4.scale(ours.detach()), NF4.scale(start.detach()))
        assert not torch.equal(ours, start)
    quantized = {id(weight) for weight in linear_weights(attacked)}
    start_of = dict(malicious.named_parameters())
    for name, parameter in attacked.named_parameters():
        assert id(parameter) in quantized or torch.equal(parameter, start_of[name])
