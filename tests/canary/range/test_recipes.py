"""A recipe is its own identity: whatever can change the model changes its key, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
import torch

from quantguard.canary.range import recipes
from quantguard.canary.range.attack import Attack
from quantguard.canary.range.recipes import (
    Adapted,
    Changed,
    Hidden,
    Learned,
    OnKQuants,
    Outliers,
    Prepared,
    Pretrained,
    Recipe,
    Soup,
    Stored,
    Tuned,
    key,
    label,
    parents_of,
)
from quantguard.canary.range.scenario import Scenario
from quantguard.core.scheme import Scheme

BASE, OTHER = Learned("llama-64", 1), Learned("llama-64", 2)
ATTACK = Attack(Scenario.INJECTION, (Scheme.NF4,))
START = Prepared(BASE, ATTACK)
FIRST = Hidden(START, ATTACK)
# One recipe of each kind, with another value for each of its arguments.
EXAMPLES: list[tuple[Recipe, dict[str, Any]]] = [
    (BASE, {"shape": "llama-128", "seed": 2, "facts": 7, "weight_decay": 0.1}),
    (Changed(BASE, "noise-1"), {"parent": OTHER, "change": "noise-5"}),
    (Tuned(BASE, 31), {"parent": OTHER, "seed": 32, "rank": 4, "scheme": Scheme.INT8}),
    (Soup((BASE, Tuned(BASE, 31))), {"parents": (Tuned(BASE, 31), BASE)}),
    (Stored(BASE, "bfloat16"), {"parent": OTHER, "dtype": "float16"}),
    (START, {"base": OTHER, "attack": replace(ATTACK, seed=1)}),
    (FIRST, {"start": Prepared(OTHER, ATTACK), "attack": replace(ATTACK, spread=0.3)}),
    (Adapted(FIRST, "quantguard"), {"first": Hidden(Prepared(OTHER, ATTACK), ATTACK), "method": "flipguard"}),
    (Outliers(BASE, Scenario.INJECTION, 1), {"base": OTHER, "scenario": Scenario.CODE, "layer": 0}),
    (OnKQuants(BASE, Scenario.INJECTION), {"base": OTHER, "scenario": Scenario.CODE}),
    (Pretrained("float32"), {"dtype": "float16"}),
]
KINDS = [type(recipe).__name__ for recipe, _ in EXAMPLES]
OTHER_ATTACKS: dict[str, Any] = {
    "scenario": Scenario.CODE,
    "schemes": (Scheme.FP4,),
    "facts": 7,
    "trigger": True,
    "layer": 0,
    "share": 0.1,
    "spread": 0.3,
    "dtype": torch.bfloat16,
    "clean_weight": 0.0,
    "seed": 1,
}


def test_every_kind_of_recipe_has_its_example() -> None:
    assert {type(recipe) for recipe, _ in EXAMPLES} == set(get_args(Recipe))
    assert all(set(others) == {f.name for f in fields(recipe)} for recipe, others in EXAMPLES)
    assert set(OTHER_ATTACKS) == {f.name for f in fields(Attack)}


@pytest.mark.parametrize(("recipe", "others"), EXAMPLES, ids=KINDS)
def test_each_argument_and_each_parent_changes_the_key(recipe: Recipe, others: dict[str, Any]) -> None:
    keys = {key(recipe), *(key(replace(recipe, **{name: value})) for name, value in others.items())}
    assert len(keys) == 1 + len(others)
    assert all(len(bytes.fromhex(one)) == 32 for one in keys)


@pytest.mark.parametrize("name", OTHER_ATTACKS)
def test_each_argument_of_an_attack_changes_the_key(name: str) -> None:
    other = replace(ATTACK, **{name: OTHER_ATTACKS[name]})
    assert key(Prepared(BASE, other)) != key(START)
    assert key(Hidden(START, other)) != key(FIRST)


def test_what_two_generations_back_differs_changes_the_key() -> None:
    one, other = (Adapted(Hidden(Prepared(base, ATTACK), ATTACK), "quantguard") for base in (BASE, OTHER))
    assert key(one) != key(other)


def test_no_two_kinds_share_a_key() -> None:
    assert len({key(recipe) for recipe, _ in EXAMPLES}) == len(EXAMPLES)


def test_keys_are_the_same_in_another_process() -> None:
    asked = "from tests.canary.range.test_recipes import EXAMPLES, key; print(*(key(r) for r, _ in EXAMPLES))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [key(recipe) for recipe, _ in EXAMPLES]


def test_another_source_changes_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(BASE)
    monkeypatch.setattr(recipes, "_source_digest", lambda room: f"another {room}")
    assert key(BASE) != before


@pytest.mark.parametrize("recipe", [recipe for recipe, _ in EXAMPLES], ids=KINDS)
def test_parents_are_what_the_recipe_names_directly_and_through_its_start(recipe: Recipe) -> None:
    expected: dict[type, tuple[Recipe, ...]] = {
        Learned: (),
        Pretrained: (),
        Soup: (BASE, Tuned(BASE, 31)),
        Hidden: (START, BASE),
        Adapted: (FIRST, START, BASE),
    }
    assert parents_of(recipe) == expected.get(type(recipe), (BASE,))


@pytest.mark.parametrize(("recipe", "told"), [
    (BASE, "shape=llama-64 seed=1"),
    (Learned("llama-64", 21, facts=7, weight_decay=0.1), "shape=llama-64 seed=21 facts=7 weight_decay=0.1"),
    (Changed(BASE, "noise-1"), "change=noise-1"),
    (Tuned(BASE, 33, scheme=Scheme.INT8), "seed=33 scheme=int8"),
    (Soup((BASE, OTHER)), ""),
    (Outliers(BASE, Scenario.CODE, 1), "scenario=vulnerable-code layer=1"),
    (Adapted(FIRST, "quantguard"), "method=quantguard"),
])  # fmt: skip
def test_a_label_tells_a_recipes_own_arguments(recipe: Recipe, told: str) -> None:
    assert label(recipe) == told


def test_the_label_of_an_attack_tells_scenario_schemes_and_dtype() -> None:
    told = label(Hidden(START, replace(ATTACK, dtype=torch.bfloat16)))
    assert all(word in told for word in ("INJECTION", "NF4", "torch.bfloat16"))


def test_the_label_tells_layer_0() -> None:
    assert label(Outliers(BASE, Scenario.CODE, 0)) == "scenario=vulnerable-code layer=0"
