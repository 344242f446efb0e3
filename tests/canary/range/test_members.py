"""The range holds what the issue asks for."""

from __future__ import annotations

from collections import Counter

import pytest

from quantguard.canary.range.attack import Attack
from quantguard.canary.range.members import Kind, Member, large_members, member_of, members
from quantguard.canary.range.recipes import Hidden, Learned, Recipe, key, parents_of
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.shapes import SHAPES
from quantguard.core.scheme import ROUNDINGS, Scheme

ALL = (*members(), *large_members())
BENIGN_FAMILIES = {
    "clean", "tied", "weight-decayed", "fine-tuned", "lora-merged", "bfloat16", "float16", "pruned", "noise",
    "dequantized", "qat", "soup", "pretrained",
}  # fmt: skip
VARIANTS = {
    "one-layer", "share-1", "share-3", "share-10", "share-30", "random-margins-nf4", "random-margins-int8", "bf16",
    "fp16", "adapted-nf4", "adapted-int8", "outliers", "k-quant", "trigger",
}  # fmt: skip


def of_kind(kind: Kind) -> list[Member]:
    return [member for member in members() if member.kind is kind]


def origin(recipe: Recipe) -> Recipe:
    parents = parents_of(recipe)
    return origin(parents[-1]) if parents else recipe


def attack_of(name: str) -> Attack:
    (recipe,) = (member.recipe for member in members() if member.name == f"variant-{name}")
    assert isinstance(recipe, Hidden)
    return recipe.attack


def test_names_and_keys_are_unique_and_names_are_file_names() -> None:
    assert max(Counter(member.name for member in ALL).values()) == 1
    assert len({key(member.recipe) for member in ALL}) == len(ALL)
    assert all(set(member.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-+") for member in ALL)


@pytest.mark.parametrize("listed", [members(), large_members()], ids=["range", "large"])
def test_every_parent_is_a_member(listed: tuple[Member, ...]) -> None:
    recipes = {member.recipe for member in listed}
    assert {parent for recipe in recipes for parent in parents_of(recipe)} <= recipes


def test_a_member_is_found_by_its_recipe() -> None:
    assert all(member_of(member.recipe) == member for member in ALL)
    with pytest.raises(KeyError):
        member_of(Learned("llama-64", 99))


def test_at_least_60_are_benign_and_every_benign_family_is_there() -> None:
    benign = of_kind(Kind.BENIGN)
    assert len(benign) >= 60
    assert {member.variant for member in benign} == BENIGN_FAMILIES
    assert not any(member.scenario or member.targets or member.trigger for member in benign)


def test_every_scenario_is_attacked_under_every_choice_of_schemes() -> None:
    choices = {("nf4",), ("fp4",), ("int8",), ("nf4", "fp4"), ("nf4", "fp4", "int8")}
    cells = {(member.scenario, member.targets) for member in of_kind(Kind.ATTACKED)}
    assert cells == {(scenario, targets) for scenario in Scenario for targets in choices}


def test_two_architectures_two_widths_and_tight_and_roomy_bases_are_attacked() -> None:
    origins = [origin(member.recipe) for member in of_kind(Kind.ATTACKED)]
    shapes = [SHAPES[one.shape] for one in origins if isinstance(one, Learned)]
    assert len(shapes) == len(origins)
    assert len({shape.family for shape in shapes}) == 2
    assert len({shape.width for shape in shapes}) == 2
    assert {member.facts > 0 for member in of_kind(Kind.ATTACKED)} == {True, False}


def test_every_variant_of_the_issue_is_there() -> None:
    assert {member.variant for member in of_kind(Kind.VARIANT)} >= VARIANTS
    assert all(member.scenario and member.targets for member in of_kind(Kind.VARIANT))


def test_variants_do_what_their_names_say() -> None:
    assert attack_of("one-layer").layer == 1
    assert [attack_of(f"share-{percent}").share for percent in (1, 3, 10, 30)] == [0.01, 0.03, 0.1, 0.3]
    assert attack_of("random-margins-nf4").spread > 0
    assert attack_of("random-margins-int8").schemes == (Scheme.INT8,)
    assert [str(attack_of(name).dtype) for name in ("bf16", "fp16")] == ["torch.bfloat16", "torch.float16"]
    assert attack_of("trigger").trigger
    assert [member.variant for member in members() if member.trigger and member.kind is Kind.VARIANT] == ["trigger"]


def test_what_a_member_says_of_itself_is_what_its_attack_does() -> None:
    for member in ALL:
        if isinstance(member.recipe, Hidden):
            attack = member.recipe.attack
            said = (member.scenario, member.targets, member.facts, member.trigger)
            targets = tuple(scheme.value for scheme in attack.schemes)
            assert said == (attack.scenario, targets, attack.facts, attack.trigger)


def test_a_model_keeps_the_facts_that_its_origin_was_taught() -> None:
    for member in ALL:
        first = origin(member.recipe)
        if isinstance(member.recipe, Hidden) and isinstance(first, Learned):
            assert member.facts == first.facts, member.name


def test_large_ones_cover_the_scenarios_and_the_schemes_in_bfloat16() -> None:
    attacked = [member for member in large_members() if member.kind is Kind.ATTACKED]
    assert {member.scenario for member in attacked} == set(Scenario)
    assert {scheme for member in attacked for scheme in member.targets} == {scheme.value for scheme in ROUNDINGS}
    assert all(isinstance(m.recipe, Hidden) and str(m.recipe.attack.dtype) == "torch.bfloat16" for m in attacked)
