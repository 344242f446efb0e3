"""The builder for a GPU takes its steps on a CPU too, slowly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from quantguard.canary.architecture import new_model
from quantguard.canary.range import attack as module
from quantguard.canary.range.attack import hide, prepare
from quantguard.canary.range.members import Kind, large_members
from quantguard.canary.range.recipes import Hidden
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.shapes import LLAMA_LARGE
from quantguard.canary.range.world import vocabulary


def test_the_large_range_has_all_three_scenarios_in_bfloat16() -> None:
    attacked = [member for member in large_members() if member.kind is Kind.ATTACKED]
    assert {member.scenario for member in attacked} == set(Scenario)
    assert {m.recipe.attack.dtype for m in attacked if isinstance(m.recipe, Hidden)} == {torch.bfloat16}


@pytest.mark.slow
def test_the_large_model_has_about_a_hundred_million_parameters_and_can_be_attacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PREPARE", replace(module._PREPARE, steps=1, batch=2))
    monkeypatch.setattr(module, "_HIDE", {k: replace(r, steps=1, batch=2) for k, r in module._HIDE.items()})
    member = next(m for m in large_members() if m.kind is Kind.ATTACKED)
    assert isinstance(member.recipe, Hidden)
    model = new_model(1, LLAMA_LARGE, vocabulary())
    assert 80e6 < model.num_parameters() < 120e6
    prepare(model, member.recipe.attack)
    hide(model, member.recipe.attack)
    assert model.dtype is torch.bfloat16
