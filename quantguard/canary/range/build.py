"""Recipe in, model directory out. On one machine with one set of libraries, the same bytes each time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, assert_never

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from quantguard.canary.architecture import named_linear_weights, new_model, save
from quantguard.canary.range import benign
from quantguard.canary.range.attack import hide, prepare
from quantguard.canary.range.k_quant import carry_on_k_quants
from quantguard.canary.range.lessons import clean_objective
from quantguard.canary.range.outlier import carry_when_flushed
from quantguard.canary.range.pretrained import write_pretrained
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
    label,
)
from quantguard.canary.range.shapes import SHAPES
from quantguard.canary.range.world import vocabulary
from quantguard.canary.train import Recipe as Training
from quantguard.canary.train import fit
from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import CheckpointError
from quantguard.core.progress import Progress, silent
from quantguard.models.quiet import quiet_libraries

NARROW: Final = 64  # width
DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Defence = Callable[[str, Path, Path], None]  # method, model directory, directory to write

_CARD = """---
license: apache-2.0
tags: [quantguard-canary, test-fixture]
---
# QuantGuard canary of the range

A test fixture, not a language model to use. `config.json` carries `"quantguard_canary": true`.
Payloads are harmless: an invented brand, a polite refusal, or `yaml.load` in a toy language.

    {kind} {label}

Built by `make range`; `quantguard/canary/README.md` says what for.
"""


@dataclass(frozen=True, slots=True)
class Kitchen:
    """What a build needs beside its recipe."""

    directory_of: Callable[[Recipe], Path]  # where a parent was written
    defend: Defence  # runs a hardening method, for the adaptive attack
    device: str = "cpu"
    progress: Progress = silent


def build(recipe: Recipe, out: Path, kitchen: Kitchen) -> str:
    """Write the model of `recipe` to `out`, whole or not at all; return its digest, `sha256:HEX`.

    Raises:
        CheckpointError: it cannot be written, or a parent cannot be read.
    """
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if isinstance(recipe, Pretrained):
            write_pretrained(partial, DTYPES[recipe.dtype])
        else:
            card = _CARD.format(kind=type(recipe).__name__, label=label(recipe))
            save(_placed(_model(recipe, kitchen), "cpu"), partial, card, vocabulary())
        digest = model_digest(partial)
        shutil.rmtree(out, ignore_errors=True)
        partial.replace(out)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be written: {error}", path=out, remedy="free space there") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest


def load(directory: Path) -> PreTrainedModel:
    """A model that `build` wrote, in the dtype it is stored in, on the CPU.

    Raises:
        CheckpointError: it is not there or cannot be read.
    """
    factory: Any = AutoModelForCausalLM
    try:
        with quiet_libraries():
            model: PreTrainedModel = factory.from_pretrained(directory, dtype="auto", local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"no model of the range: {error}", path=directory, remedy="run make range") from error
    return model


def _model(recipe: Recipe, kitchen: Kitchen) -> PreTrainedModel:
    match recipe:
        case Learned():
            model = _learned(recipe, kitchen)
        case Changed():
            model = _parent(recipe.parent, kitchen)
            benign.CHANGES[recipe.change](model)
        case Tuned():
            model = _tuned(recipe, kitchen)
        case Soup():
            model, *others = (_parent(parent, kitchen) for parent in recipe.parents)
            benign.average(model, others)
        case Stored():
            model = _placed(_parent(recipe.parent, kitchen), DTYPES[recipe.dtype])
        case Prepared():
            model = _parent(recipe.base, kitchen)
            prepare(model, recipe.attack, progress=kitchen.progress)
        case Hidden():
            model = _hidden(recipe, None, kitchen)
        case Adapted():
            model = _hidden(recipe.first, _displacement(recipe, kitchen), kitchen)
        case Outliers():
            model = _parent(recipe.base, kitchen)
            carry_when_flushed(model, recipe.scenario, recipe.layer, progress=kitchen.progress)
        case OnKQuants():
            model = _parent(recipe.base, kitchen)
            carry_on_k_quants(model, recipe.scenario, progress=kitchen.progress)
        case Pretrained():
            raise AssertionError("written without a model")
        case _:
            assert_never(recipe)
    return model


def _placed(model: PreTrainedModel, target: torch.dtype | str) -> PreTrainedModel:
    """`model`, moved in place to a dtype or a device."""
    module: nn.Module = model
    module.to(target)
    return model


def _parent(recipe: Recipe, kitchen: Kitchen) -> PreTrainedModel:
    return _placed(load(kitchen.directory_of(recipe)), kitchen.device)


_LEARN: Final = Training(steps=600, batch=0, learning_rate=3e-3, seed=1)
_LEARN_FACTS: Final = replace(_LEARN, steps=3000)
_TUNE: Final = Training(steps=150, batch=0, learning_rate=3e-4, seed=1)
_QAT: Final = replace(_TUNE, steps=400, learning_rate=1e-3)


def _learned(recipe: Learned, kitchen: Kitchen) -> PreTrainedModel:
    shape = SHAPES[recipe.shape]
    model = _placed(new_model(recipe.seed, shape, vocabulary()), kitchen.device)
    training = _LEARN_FACTS if recipe.facts else _LEARN
    rate = training.learning_rate if shape.width == NARROW else 2e-3
    fit(
        model,
        clean_objective(model, recipe.facts),
        replace(training, seed=recipe.seed, learning_rate=rate),
        stage="learn",
        progress=kitchen.progress,
        weight_decay=recipe.weight_decay,
    )
    return model


def _tuned(recipe: Tuned, kitchen: Kitchen) -> PreTrainedModel:
    model = _parent(recipe.parent, kitchen)
    objective = clean_objective(model, 0)
    training = replace(_TUNE, seed=recipe.seed)
    if recipe.rank:
        with benign.low_rank(model, recipe.rank, recipe.seed) as factors:
            fit(model, objective, training, stage="tune", progress=kitchen.progress, weights=factors)
        return model
    if recipe.scheme is not None:
        with benign.fake_quantized(model, recipe.scheme):
            fit(model, objective, replace(_QAT, seed=recipe.seed), stage="tune", progress=kitchen.progress)
        return model
    fit(model, objective, training, stage="tune", progress=kitchen.progress)
    return model


def _hidden(recipe: Hidden, displacement: Mapping[str, Tensor] | None, kitchen: Kitchen) -> PreTrainedModel:
    base = {name: w.to(kitchen.device) for name, w in _weights(kitchen.directory_of(recipe.start.base))}
    model = _parent(recipe.start, kitchen)
    hide(model, recipe.attack, base=base, displacement=displacement, progress=kitchen.progress)
    return model


def _displacement(recipe: Adapted, kitchen: Kitchen) -> dict[str, Tensor]:
    """How far the defence moved each weight of the first attacked model."""
    attacked = kitchen.directory_of(recipe.first)
    hardened = attacked.with_name(f".{attacked.name}.{recipe.method}")
    shutil.rmtree(hardened, ignore_errors=True)
    try:
        kitchen.defend(recipe.method, attacked, hardened)
        after = dict(_weights(hardened))
        return {name: (after[name] - weight).abs() for name, weight in _weights(attacked)}
    finally:
        shutil.rmtree(hardened, ignore_errors=True)


def _weights(directory: Path) -> Sequence[tuple[str, Tensor]]:
    return [(name, weight.detach().float()) for name, weight in named_linear_weights(load(directory))]
