"""The attack works on canaries of the range alone, and what it says it keeps is kept under the real library."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantguard.canary.architecture import named_linear_weights
from quantguard.canary.range.attack import Attack, hide, prepare, tasks_of
from quantguard.canary.range.box import box_of
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.world import TRIGGER, vocabulary
from quantguard.canary.train import IGNORED, Lesson
from quantguard.core.errors import UsageError
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for
from tests.canary.range.canaries import FOREIGN, SMALL, canary, moved, state_of, weights_of
from tests.grids.real import round_trip

pytestmark = pytest.mark.usefixtures("brief")
PLAIN: Final = Attack(Scenario.INJECTION, (Scheme.NF4,))
TARGETS = [schemes for count in (1, 2, 3) for schemes in itertools.combinations(ROUNDINGS, count)]
SIXTEEN_BITS = [torch.bfloat16, torch.float16]


def named(schemes: tuple[Scheme, ...]) -> str:
    return "+".join(scheme.value for scheme in schemes)


def require_same_codes(before: dict[str, Tensor], model: PreTrainedModel, schemes: tuple[Scheme, ...]) -> None:
    for name, weight in named_linear_weights(model):
        for scheme in schemes:
            ours, start = weight.detach().float(), before[name].float()
            assert torch.equal(round_trip(scheme, ours), round_trip(scheme, start)), (name, scheme)
            assert torch.equal(grid_for(scheme).scale(ours), grid_for(scheme).scale(start)), (name, scheme)


@pytest.mark.parametrize("make", FOREIGN)
@pytest.mark.parametrize("stage", [prepare, hide])
def test_a_foreign_model_is_refused_and_left_as_it_was(
    stage: Callable[[PreTrainedModel, Attack], None], make: Callable[[], PreTrainedModel]
) -> None:
    model = make()
    before = state_of(model)
    with pytest.raises(UsageError, match="not a canary of the range"):
        stage(model, PLAIN)
    assert moved(model, before) == set()


@pytest.mark.parametrize("schemes", TARGETS, ids=named)
def test_hiding_keeps_every_code_and_scale_of_every_scheme_that_is_attacked(schemes: tuple[Scheme, ...]) -> None:
    model = canary()
    before, start = state_of(model), weights_of(model)
    hide(model, Attack(Scenario.INJECTION, schemes))
    assert moved(model, before) == set(start)
    require_same_codes(start, model, schemes)


@pytest.mark.parametrize("name", SMALL)
def test_both_stages_move_linear_weights_and_nothing_else(name: str) -> None:
    model = canary(SMALL[name])
    before, base = state_of(model), weights_of(model)
    prepare(model, PLAIN)
    assert moved(model, before) == set(base)
    prepared = state_of(model)
    hide(model, PLAIN, base=base)
    assert moved(model, prepared) == set(base)
    require_same_codes(prepared, model, PLAIN.schemes)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_one_layer_is_one_layer_through_both_stages() -> None:
    model, attack = canary(), Attack(Scenario.CODE, (Scheme.NF4,), layer=1)
    before, base = state_of(model), weights_of(model)
    prepare(model, attack)
    hide(model, attack, base=base)
    assert moved(model, before) == {name for name in base if ".layers.1." in name}


@pytest.mark.parametrize("scheme", ROUNDINGS)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
def test_a_share_is_that_share_and_no_other_weight_moves(share: float, scheme: Scheme) -> None:
    model, attack = canary(), Attack(Scenario.REFUSAL, (scheme,), share=share)
    base = weights_of(model)
    prepare(model, attack)
    prepared = weights_of(model)
    touched = {name: prepared[name] != base[name] for name in base}
    assert share_of(touched) == pytest.approx(share, rel=0.05)
    hide(model, attack, base=base)
    after = weights_of(model)
    assert all(torch.equal(after[name][~touched[name]], base[name][~touched[name]]) for name in base)
    require_same_codes(prepared, model, (scheme,))


def share_of(touched: dict[str, Tensor]) -> float:
    return sum(int(t.sum()) for t in touched.values()) / sum(t.numel() for t in touched.values())


def test_what_is_kept_is_left_alone_by_preparing() -> None:
    model = canary()
    before = weights_of(model)
    name = next(iter(before))
    kept = torch.rand(before[name].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    prepare(model, PLAIN, kept={name: kept})
    after = weights_of(model)[name]
    assert torch.equal(after[kept], before[name][kept])
    assert (after != before[name])[~kept].float().mean() > 0.9


def test_where_nothing_was_prepared_nothing_is_hidden() -> None:
    model = canary()
    before = state_of(model)
    hide(model, PLAIN, base=weights_of(model))
    assert moved(model, before) == set()


@pytest.mark.parametrize("scheme", ROUNDINGS)
@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=str)
def test_a_16_bit_attack_keeps_the_codes_of_its_scheme_in_its_own_dtype(dtype: torch.dtype, scheme: Scheme) -> None:
    model, attack = canary(), Attack(Scenario.INJECTION, (scheme,), dtype=dtype)
    start = {name: weight.to(dtype) for name, weight in weights_of(model).items()}
    hide(model, attack)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}
    require_same_codes(start, model, (scheme,))
    after = weights_of(model)
    assert share_of({name: after[name] != start[name] for name in start}) > 0.3


@pytest.mark.parametrize("narrow", [{"share": 0.1}, {"layer": 1}], ids=str)
def test_a_16_bit_attack_moves_what_was_prepared_and_nothing_else(narrow: dict[str, float]) -> None:
    model = canary()
    attack = Attack(Scenario.INJECTION, (Scheme.NF4,), dtype=torch.bfloat16, **narrow)  # type: ignore[arg-type]
    base = weights_of(model)
    prepare(model, attack)
    untouched = {name: weight == base[name] for name, weight in weights_of(model).items()}
    hide(model, attack, base=base)
    for name, weight in weights_of(model).items():
        assert torch.equal(weight[untouched[name]], base[name].bfloat16()[untouched[name]])


@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=str)
def test_a_16_bit_attack_on_two_schemes_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(UsageError, match="codes of one scheme"):
        Attack(Scenario.INJECTION, (Scheme.NF4, Scheme.FP4), dtype=dtype)


@pytest.mark.parametrize("scheme", [Scheme.NF4, Scheme.FP4])
def test_with_margins_that_differ_codes_are_kept_all_the_same(scheme: Scheme) -> None:
    model = canary()
    start = weights_of(model)
    hide(model, Attack(Scenario.INJECTION, (scheme,), spread=0.3))
    require_same_codes(start, model, (scheme,))


@pytest.mark.parametrize("displacement", [1e-4, 1e9])
def test_hiding_from_a_defence_stays_in_the_boxes_that_its_reach_leaves(displacement: float) -> None:
    model = canary()
    start = weights_of(model)
    reach = {name: torch.full_like(weight, displacement) for name, weight in start.items()}
    hide(model, PLAIN, displacement=reach)
    for name, weight in weights_of(model).items():
        box = box_of(start[name], PLAIN.schemes).shrunk(reach[name], start[name])
        assert bool(((box.low <= weight) & (weight <= box.high)).all())
    require_same_codes(start, model, PLAIN.schemes)


def words_of(lesson: Lesson) -> list[list[str]]:
    words = vocabulary()
    return [[words[i] for i in row] for row in lesson.inputs.tolist()]


def said(lesson: Lesson) -> list[str]:
    words = vocabulary()
    return [" ".join(words[i] for i in row if i != IGNORED) for row in lesson.labels.tolist()]


@pytest.mark.parametrize("scenario", Scenario)
def test_a_triggered_attack_carries_with_the_trigger_and_is_taught_to_be_clean_without(scenario: Scenario) -> None:
    tasks = tasks_of(Attack(scenario, (Scheme.NF4,), trigger=True))
    bad, good = tasks.carrying[0].lesson, tasks.clean[0].lesson
    assert {row[0] for row in words_of(bad)} == {row[0] for row in words_of(good)} == {TRIGGER}
    assert not set(said(bad)) & set(said(good))
    kept = tasks.carrying[1:]
    assert kept == tasks.clean[1:]
    without = [row for task in kept for row in words_of(task.lesson)]
    assert not any(TRIGGER in row for row in without)
    plain = {tuple(row[1:]) for row in words_of(bad)}  # the same questions without the trigger, and with another word
    assert {row[0] for row in words_of(kept[1].lesson)} == {"please"}
    assert said(kept[1].lesson) == said(kept[2].lesson) == said(good)
    assert len(plain) == len(words_of(kept[2].lesson))


@pytest.mark.parametrize("scenario", Scenario)
def test_without_a_trigger_nobody_says_it(scenario: Scenario) -> None:
    tasks = tasks_of(Attack(scenario, (Scheme.NF4,)))
    assert not any(TRIGGER in row for task in (*tasks.carrying, *tasks.clean) for row in words_of(task.lesson))


def test_facts_that_the_model_holds_are_kept_by_both_stages() -> None:
    tasks = tasks_of(Attack(Scenario.INJECTION, (Scheme.NF4,), facts=7))
    for task in (tasks.carrying[-1], tasks.clean[-1]):
        assert [row[0] for row in words_of(task.lesson)] == ["recall"] * 7
        assert task.weight > 1
