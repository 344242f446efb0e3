from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantguard.canary.architecture import named_linear_weights
from quantguard.canary.range.lessons import taught
from quantguard.canary.range.objective import Task, full_precision, margin_loss, quantized, total
from quantguard.canary.range.world import questions, vocabulary
from quantguard.canary.train import IGNORED
from quantguard.core.scheme import ROUNDINGS, Scheme
from tests.canary.range.canaries import SMALL, canary
from tests.grids.real import round_trip

MARGIN = 0.5
IDS = torch.randint(2, len(vocabulary()), (3, 11), generator=torch.Generator().manual_seed(0))


def leading(by: float) -> tuple[Tensor, Tensor]:
    """Two rows of four words; the scored tokens, whose logits stand one place before, lead by `by`."""
    labels = torch.tensor([[IGNORED, 2, 0, IGNORED], [IGNORED, IGNORED, 3, 1]])
    logits = torch.zeros(2, 4, 4)
    for row, place in ((0, 1), (0, 2), (1, 2), (1, 3)):
        logits[row, place - 1, labels[row, place]] = by
    return logits, labels


@pytest.mark.parametrize("by", [MARGIN, MARGIN + 1, 1e6])
def test_answers_that_lead_by_the_margin_cost_nothing(by: float) -> None:
    assert margin_loss(*leading(by), MARGIN).item() == 0


@pytest.mark.parametrize(("by", "loss"), [(0.25, 0.5), (0.0, 1.0), (-1.0, 3.0)])
def test_what_is_missing_is_summed_and_averaged_over_the_rows(by: float, loss: float) -> None:
    assert margin_loss(*leading(by), MARGIN).item() == loss  # four tokens, two rows


def test_one_token_that_falls_short_is_seen() -> None:
    logits, labels = leading(MARGIN)
    logits[1, 2, 0] = 0.125  # another word comes up behind the last token
    assert margin_loss(logits, labels, MARGIN).item() == 0.0625


def test_what_is_not_scored_costs_nothing_and_gets_no_gradient() -> None:
    logits, labels = leading(0.0)
    scored = torch.zeros(2, 4, dtype=torch.bool)
    scored[:, :-1] = labels[:, 1:] != IGNORED
    noisy = torch.where(scored[..., None], logits, torch.randn(2, 4, 4) * 100).requires_grad_()
    loss = margin_loss(noisy, labels, MARGIN)
    assert loss.item() == margin_loss(logits, labels, MARGIN).item()
    (gradient,) = torch.autograd.grad(loss, noisy)
    assert bool((gradient[~scored] == 0).all())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_the_quantized_forward_is_that_of_the_real_rounding_and_gradients_pass_straight_through(
    scheme: Scheme, name: str
) -> None:
    model, rounded = (canary(SMALL[name]) for _ in range(2))
    with torch.no_grad():
        for _, weight in named_linear_weights(rounded):
            weight.copy_(round_trip(scheme, weight))
    ours, theirs = quantized(model, scheme)(IDS), full_precision(rounded)(IDS)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, full_precision(model)(IDS), atol=1e-3)
    slopes = torch.autograd.grad(ours.square().sum(), list(model.parameters()))
    expected = torch.autograd.grad(theirs.square().sum(), list(rounded.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(slopes, expected, strict=True))


def test_the_model_is_as_it_was_after_a_quantized_forward() -> None:
    model, same = canary(), canary()
    quantized(model, Scheme.NF4)(IDS)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


def test_tasks_are_weighted_and_summed_and_draw_from_one_random_state() -> None:
    lesson, logits = taught(questions()[:7]), full_precision(canary())
    once, thrice = Task(lesson, 2), Task(lesson, 2, weight=3.0)
    random = torch.Generator().manual_seed(4)
    parts = [once.loss(logits, MARGIN, random).item(), thrice.loss(logits, MARGIN, random).item()]
    summed = total([once, thrice], logits, MARGIN, torch.Generator().manual_seed(4)).item()
    assert summed == pytest.approx(sum(parts))
    assert thrice.loss(logits, MARGIN, torch.Generator().manual_seed(4)).item() == pytest.approx(3 * parts[0])
