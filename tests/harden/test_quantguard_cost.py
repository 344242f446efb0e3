"""The paper's method: what makes a step cheap or small changes no result; memory is spoken of before it is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from quantguard.core.errors import HardenError
from quantguard.core.progress import silent
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for
from quantguard.harden.budget import Budget, Mode, budget
from quantguard.harden.calibration import Batch
from quantguard.harden.losses import distance, reversal, variable_gradient
from quantguard.harden.quantguard import quantguard
from quantguard.harden.rounding import rounding_of, start_of, write_soft
from quantguard.harden.teacher import Teacher
from quantguard.harden.trunk import Parts, checkpointed, in_parts
from quantguard.harden.turns import Problem, Solution
from quantguard.models.layers import planned_layers, turn_conv1d
from quantguard.models.load import LoadedModel
from tests.harden.families import FAMILIES

WORDS = 50
PLENTY = 1 << 40


@cache
def model_of(family: str) -> PreTrainedModel:
    settings = FAMILIES[family]
    ids: dict[str, Any] = {"vocab_size": WORDS, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(CONFIG_MAPPING[settings.model_type](**ids, **settings.settings))
    turn_conv1d(made)
    return cast(PreTrainedModel, made.to(settings.dtype).eval().requires_grad_(False))


def batch_of(*lengths: int, first: int = 0) -> Batch:
    """Texts number `first` and on, each of its own random words whatever the batch."""
    rows = [
        torch.randint(2, WORDS, (length,), generator=torch.Generator().manual_seed(first + row))
        for row, length in enumerate(lengths)
    ]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = (torch.arange(tokens.shape[1])[None] < torch.tensor(lengths)[:, None]).long()
    return Batch(tokens, mask, tuple(range(first, first + len(lengths))))


def problem_of(family: str, batches: Iterable[Batch], steps: int, *, room: int = PLENTY) -> Problem:
    model = model_of(family)
    names = planned_layers(model, Scheme.NF4, "cpu")
    weights = {name: model.get_parameter(name).detach() for name in names}
    frozen = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    loaded = LoadedModel(model, cast(PreTrainedTokenizerBase, None), None, "cpu", chat=False)
    return Problem(loaded, grid_for(Scheme.NF4), weights, frozen, batches, steps, 0, lambda: room)


@pytest.mark.parametrize("scheme", ROUNDINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_gradient_that_is_written_out_is_the_one_that_torch_derives(scheme: Scheme, dtype: torch.dtype) -> None:
    drawn = torch.Generator().manual_seed(4)
    weight = (torch.randn(600, 128, generator=drawn) * 0.05).to(dtype)
    grid, frozen = grid_for(scheme), torch.rand(weight.shape, generator=drawn) < 0.1
    rounding = rounding_of(grid, weight, frozen)
    variable = (start_of(grid, weight) + torch.randn(weight.shape, generator=drawn)).requires_grad_()
    slope = torch.randn(weight.shape, generator=drawn).to(dtype)
    soft = rounding.soft_weight(variable)
    loss = (soft.to(dtype) * slope).sum().float() + 3e4 * reversal(rounding, variable) + 2e7 * distance(rounding, soft)
    torch.autograd.backward(loss)
    derived = variable.grad
    with torch.no_grad():
        made = variable_gradient(rounding, variable, slope, pull=3e4, hold=2e7)
        written = torch.empty_like(weight)
        write_soft(rounding, variable, written)
    assert derived is not None
    torch.testing.assert_close(made, derived, rtol=1e-4, atol=1e-6 * float(derived.abs().max()))
    assert bool((made[~rounding.free] == 0).all())
    torch.testing.assert_close(written, soft.detach().to(dtype))
    assert torch.equal(written[~rounding.free], weight[~rounding.free])


@pytest.mark.parametrize("family", FAMILIES)
def test_trunk_and_head_give_the_logits_of_the_model_without_padding(family: str) -> None:
    model, batch = model_of(family), batch_of(9, 4)
    parts = in_parts(model, batch)
    with torch.no_grad():
        states = parts.trunk(batch)
        whole = model(input_ids=batch.tokens, attention_mask=batch.mask).logits[batch.mask.bool()]
        assert states.shape == (13, 64)  # not the logits: the model was divided
        torch.testing.assert_close(parts.head(states), whole)
        assert torch.equal(model(input_ids=batch.tokens, attention_mask=batch.mask).logits[batch.mask.bool()], whole)


def test_a_model_whose_logits_need_more_than_the_trunk_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of("llama"), batch_of(9, 4)
    forward = type(model).forward

    def scaled(*args: object, **given: object) -> object:
        output = forward(*args, **given)
        output.logits = output.logits * cast(Tensor, given["input_ids"]).float().mean()
        return output

    monkeypatch.setattr(type(model), "forward", scaled)
    parts = in_parts(model, batch)
    with torch.no_grad():
        whole = model(input_ids=batch.tokens, attention_mask=batch.mask).logits[batch.mask.bool()]
        assert torch.equal(parts.head(parts.trunk(batch)), whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointed_gradients_are_those_without(family: str) -> None:
    model, batch = model_of(family), batch_of(9, 4)
    parameters = [model.get_parameter(name) for name in planned_layers(model, Scheme.INT8, "cpu")]
    parts = in_parts(model, batch)

    def gradients() -> list[Tensor]:
        for parameter in parameters:
            parameter.requires_grad_(True)
        torch.autograd.backward(parts.trunk(batch).float().square().mean())
        found = [torch.zeros(()) if p.grad is None else p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(False)
        return found

    plain = gradients()
    with checkpointed(model):
        again = gradients()
    assert any(bool(gradient.any()) for gradient in plain)
    torch.testing.assert_close(again, plain)
    assert not any("forward" in vars(module) for module in model.modules())


class Counted:
    """A trunk that counts the texts which went through it."""

    def __init__(self, parts: Parts) -> None:
        self.texts = 0
        self._trunk = parts.trunk

    def __call__(self, batch: Batch) -> Tensor:
        self.texts += len(batch.tokens)
        return self._trunk(batch)


@pytest.mark.parametrize("family", ["llama", "gpt-neox", "gemma-2"])
def test_each_text_is_put_to_the_teacher_once_and_what_it_said_differs_by_the_last_bits_alone(family: str) -> None:
    batches = [batch_of(9, 4, 7), batch_of(12, 5, first=3), batch_of(4, 7, 12, first=1), batch_of(9)]
    parts = in_parts(model_of(family), batches[0])
    counted = Counted(parts)
    keeps, anew = Teacher(Parts(counted, parts.head), {}), Teacher(parts, None)
    for batch in batches[:2]:
        assert torch.equal(keeps.states(batch), anew.states(batch))
    given = [batch_of(*(9, 4, 7, 12, 5)[first:last], first=first) for first, last in ((1, 4), (0, 2), (2, 5))]
    for batch in given:
        torch.testing.assert_close(keeps.states(batch), anew.states(batch))
    assert counted.texts == 5


def solved(room: int) -> tuple[Solution, list[str]]:
    said: list[str] = []

    def tell(stage: str, done: int, total: int, detail: str = "") -> None:
        said.append(f"{stage}: {detail}")

    batches = [batch_of(*range(20, 60)), batch_of(*range(20, 60))]
    return quantguard(problem_of("llama", batches * 4, 8, room=room), tell), said


def room_of(mode: Mode) -> int:
    """The least room in which this mode is taken, of `solved`'s work."""
    room = PLENTY
    while (found := budget_in(room)).mode is not mode:
        room = int(found.needed / 0.9)
    return int(found.needed / 0.9) + 2


def budget_in(room: int) -> Budget:
    batches = [batch_of(*range(20, 60))]
    problem = problem_of("llama", batches, 8, room=room)
    return budget(problem, in_parts(problem.loaded.model, batches[0]), batches)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_first_mode_that_fits_is_taken_and_told_and_its_choices_are_those_of_the_plain_one(mode: Mode) -> None:
    plain, _ = solved(PLENTY)
    solution, said = solved(room_of(mode))
    assert said[0].startswith(f"harden, mode: {mode.value}: needs ")
    assert said[0].count("iB") == 2
    pairs = [(plain.choices[name].levels, choice.levels) for name, choice in solution.choices.items()]
    differing = sum(int((one != other).sum()) for one, other in pairs) / sum(one.numel() for one, _ in pairs)
    assert differing <= (0.002 if mode is Mode.SMALL_STATE else 0.0)


def test_a_smaller_mode_needs_less() -> None:
    needed = [budget_in(room_of(mode)).needed for mode in Mode]
    assert needed == sorted(needed, reverse=True)
    with pytest.raises(HardenError, match=r"needs .* MiB beside the model, and .* MiB are free \(use --method auto"):
        budget_in(int(needed[-1] / 0.9) - 2)


def test_what_cannot_fit_is_refused_before_the_model_runs() -> None:
    def unread() -> Iterator[Batch]:
        raise AssertionError("the model was asked")
        yield batch_of(1)

    with pytest.raises(HardenError, match="use --method auto, which needs"):
        quantguard(problem_of("llama", unread(), 1, room=1 << 20), silent)


def test_the_teacher_is_kept_where_half_of_what_is_left_holds_what_it_says() -> None:
    batches = [batch_of(*range(20, 60), first=40 * number) for number in range(10)]
    said = 10 * sum(range(20, 60)) * 64 * 4  # bytes
    needed = budget_in(PLENTY).needed

    def keeps(room: float, given: list[Batch]) -> bool:
        problem = problem_of("llama", given, 10, room=int(room))
        found = budget(problem, in_parts(problem.loaded.model, given[0]), given)
        assert found.mode is Mode.PLAIN
        return found.keeps_teacher

    assert not keeps(needed + 2 * said - 2, batches)
    assert keeps(needed + 2 * said + 2, batches)
    assert not keeps(PLENTY, [Batch(batch.tokens, batch.mask) for batch in batches])  # whose texts are not known


def test_the_model_is_left_as_it_was() -> None:
    before = {name: parameter.clone() for name, parameter in model_of("llama").named_parameters()}
    solved(PLENTY)
    for name, parameter in model_of("llama").named_parameters():
        assert torch.equal(parameter, before[name])
        assert not parameter.requires_grad
        assert parameter.grad is None
