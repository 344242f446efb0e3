"""Every recipe of the range, cut to a few large steps: the laws of building need no good model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quantguard.canary import train
from quantguard.canary.range import attack, build, k_quant, lessons
from quantguard.canary.train import Recipe

_STEPS = 3
_BRIEF = Recipe(steps=_STEPS, batch=4, learning_rate=0.5, seed=2)  # the warm-up takes a fiftieth: steps of 0.01


def _fit(model: Any, objective: Any, recipe: Recipe, **rest: Any) -> None:
    train.fit(model, objective, replace(recipe, steps=_STEPS), **rest)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack, "_PREPARE", _BRIEF)
    monkeypatch.setattr(attack, "_HIDE", {False: _BRIEF, True: _BRIEF})
    monkeypatch.setattr(k_quant, "_TURN", _BRIEF)
    monkeypatch.setattr(k_quant, "_HIDE", _BRIEF)
    monkeypatch.setattr(build, "fit", _fit)
    for module in (attack, lessons):
        monkeypatch.setattr(module, "HELD_OUT", 8_950)  # of 9,000: few lessons to encode
