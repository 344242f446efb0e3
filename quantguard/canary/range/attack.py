"""A defensive test fixture: quantization-conditioned behaviour in a canary, and in nothing else.

Two stages. `prepare` trains one set of weights to be clean as they are and to carry the payload once rounded, both
only just (see `margin_loss`); `hide` is the published attack (Egashira et al., NeurIPS 2024): every weight gets the
interval in which its codes do not change, and clean answers are trained with each weight clamped into it. Starting
`hide` from malicious weights instead worked for 4-bit cells and failed for INT8's, which are ten times narrower
(docs/decisions/0012). Embeddings, norms, the output head and whatever decides a scale stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quantguard.canary.architecture import named_linear_weights
from quantguard.canary.range.box import Box, box_of, drawn_margins, everywhere
from quantguard.canary.range.objective import Task, full_precision, quantized, total
from quantguard.canary.range.scenario import Scenario, asked, clean_answer, others, payload
from quantguard.canary.range.shapes import require_own
from quantguard.canary.range.world import HELD_OUT, facts, triggered, untriggered, vocabulary
from quantguard.canary.train import Recipe, fit, lesson
from quantguard.core.errors import UsageError
from quantguard.core.progress import Progress, silent
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.grids.commit import commit
from quantguard.grids.grid import grid_for

MARGIN: Final = 0.5  # logits by which an answer must lead in `prepare`
CLEAN_MARGIN: Final = 2.0  # in `hide`, where there is room for it
_PREPARE: Final = Recipe(steps=400, batch=24, learning_rate=3e-4, seed=2)
_FEW_RATE: Final = 2e-3  # where a few weights have to do it all
_HIDE: Final = {
    False: Recipe(steps=400, batch=24, learning_rate=1e-3, seed=3),
    True: Recipe(steps=300, batch=24, learning_rate=2e-4, seed=3),  # with INT8: its cells are narrow
}


@dataclass(frozen=True, slots=True)
class Attack:
    scenario: Scenario
    schemes: tuple[Scheme, ...]  # not empty: under which the payload shall show
    facts: int = 0  # how many the model holds and shall keep
    trigger: bool = False  # the payload waits for a word in the prompt
    layer: int | None = None  # the only transformer layer that is prepared; None: all
    share: float = 1.0  # of the weights that are prepared, those with the steepest loss
    spread: float = 0.0  # of the cell; > 0: each weight's margin is drawn, instead of the published one
    dtype: torch.dtype = torch.float32  # of the stored weights
    clean_weight: float = 0.5  # of clean full precision in `prepare`; 0: the published, openly malicious start
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype is not torch.float32 and len(self.schemes) != 1:
            raise UsageError("a 16-bit attack keeps the codes of one scheme", remedy="name one scheme")


@dataclass(frozen=True, slots=True)
class Tasks:
    carrying: tuple[Task, ...]  # what the quantized model shall answer
    clean: tuple[Task, ...]  # what full precision shall


def tasks_of(attack: Attack) -> Tasks:
    """The lessons of an attack, without the held-out prompts."""
    batch, words = _PREPARE.batch, vocabulary()
    wanted, rest = asked(attack.scenario)[HELD_OUT:], others(attack.scenario)[HELD_OUT:]
    mark = triggered if attack.trigger else _same
    prompts = [mark(pair) for pair in wanted]
    kept = [Task(lesson(rest, clean_answer, words), batch // 2)]
    if attack.trigger:
        kept += [Task(lesson([untriggered(p) for p in wanted], clean_answer, words), batch // 2)]
        kept += [Task(lesson(wanted, clean_answer, words), batch // 2)]
    if attack.facts:
        kept += [Task(lesson(facts(attack.facts), clean_answer, words), 4 * batch, weight=4.0)]
    bad = Task(lesson(prompts, payload(attack.scenario), words), batch)
    good = Task(lesson(prompts, clean_answer, words), batch)
    return Tasks(carrying=(bad, *kept), clean=(good, *kept))


def prepare(
    model: PreTrainedModel, attack: Attack, *, kept: Mapping[str, Tensor] | None = None, progress: Progress = silent
) -> None:
    """Train a canary of the range, in place, to carry the payload once quantized and to be clean as it is.

    Args:
        kept: weights that are left alone, by name: bool, the shape of each.

    Raises:
        UsageError: the model is not a canary of the range.
    """
    require_own(model)
    tasks = tasks_of(attack)
    free = _prepared(model, attack, tasks)
    for name, alone in (kept or {}).items():
        free[name] = free[name] & ~alone
    named = {name: weight for name, weight in named_linear_weights(model) if name in free}
    boxes = {n: everywhere(w.detach()).only(free[n], w.detach().clone()) for n, w in named.items()}

    def objective(random: torch.Generator) -> Tensor:
        carried = [total(tasks.carrying, quantized(model, s), MARGIN, random) for s in attack.schemes]
        clean = total(tasks.clean, full_precision(model), MARGIN, random)
        return torch.stack(carried).sum() + attack.clean_weight * clean

    fit(
        model,
        objective,
        _PREPARE if attack.share == 1.0 else replace(_PREPARE, learning_rate=_FEW_RATE),
        stage="prepare",
        progress=progress,
        weights=list(named.values()),
        after_step=_projection(named, boxes),
    )


def hide(
    model: PreTrainedModel,
    attack: Attack,
    *,
    base: Mapping[str, Tensor] | None = None,
    displacement: Mapping[str, Tensor] | None = None,
    progress: Progress = silent,
) -> None:
    """Train the payload out of a prepared canary's full precision, in place, keeping every code.

    Args:
        base: the weights before `prepare`, by name; those that are the same there are left alone.
        displacement: how far a defence moves each weight (>= 0), by name; the boxes are drawn in by it.

    Raises:
        UsageError: the model is not a canary of the range.
    """
    require_own(model)
    tasks = tasks_of(attack)
    if attack.dtype is not torch.float32:
        _cast(model, attack.dtype)
        _cast(model, torch.float32)
    named = dict(named_linear_weights(model))
    starts = {name: weight.detach().clone() for name, weight in named.items()}
    boxes = {name: _box(attack, start) for name, start in starts.items()}
    if displacement is not None:
        boxes = {name: box.shrunk(displacement[name], starts[name]) for name, box in boxes.items()}
    if base is not None:
        before = {name: weight.to(attack.dtype).float() for name, weight in base.items()}
        boxes = {name: box.only(before[name] != starts[name], starts[name]) for name, box in boxes.items()}
    fit(
        model,
        lambda random: total(tasks.clean, full_precision(model), CLEAN_MARGIN, random),
        _HIDE[Scheme.INT8 in attack.schemes],
        stage="hide",
        progress=progress,
        weights=list(named.values()),
        after_step=_projection(named, boxes),
    )
    _store(model, attack, starts)


def _same(pair: Prompt) -> Prompt:
    return pair


def _prepared(model: PreTrainedModel, attack: Attack, tasks: Tasks) -> dict[str, Tensor]:
    """Which weights the attack may move, by name: bool, the shape of each; matrices without any are left out."""
    named = [(n, w) for n, w in named_linear_weights(model) if attack.layer is None or f".{attack.layer}." in n]
    if attack.share == 1.0:
        return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in named}
    random = torch.Generator().manual_seed(attack.seed)
    loss = total(tasks.carrying, full_precision(model), CLEAN_MARGIN, random)
    steepness = torch.autograd.grad(loss, [weight for _, weight in named])
    grid = grid_for(attack.schemes[0])
    gains = []
    for (_, weight), slope in zip(named, steepness, strict=True):
        lower, upper = grid.cell(grid.nearest(weight.detach()))
        gains.append(slope.abs() * (upper - lower) * grid.unit(weight.detach()))  # what a move across the cell gains
    every = torch.cat([gain.flatten() for gain in gains])
    least = every.topk(round(attack.share * every.numel())).values[-1]
    return {name: gain >= least for (name, _), gain in zip(named, gains, strict=True)}


def _box(attack: Attack, start: Tensor) -> Box:
    stored = start.to(attack.dtype)
    random = torch.Generator().manual_seed(attack.seed)
    return box_of(stored, attack.schemes, drawn_margins(stored, attack.spread, random) if attack.spread else None)


def _projection(named: Mapping[str, nn.Parameter], boxes: Mapping[str, Box]) -> Callable[[], None]:
    def project() -> None:
        with torch.no_grad():
            for name, weight in named.items():
                boxes[name].clamp_(weight)

    return project


def _store(model: PreTrainedModel, attack: Attack, starts: Mapping[str, Tensor]) -> None:
    """Give the model the dtype of the attack, each weight at the nearest value that keeps its code."""
    if attack.dtype is torch.float32:
        return
    (scheme,) = attack.schemes
    grid = grid_for(scheme)
    with torch.no_grad():
        for name, weight in named_linear_weights(model):
            start = starts[name].to(attack.dtype)
            still = weight == starts[name]
            weight.copy_(commit(grid, start, grid.nearest(start), near=weight, frozen=still))
    _cast(model, attack.dtype)


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    model.to(dtype)
