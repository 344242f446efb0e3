from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantguard.canary.architecture import MARKER, named_linear_weights
from quantguard.canary.range import build as module
from quantguard.canary.range.attack import Attack
from quantguard.canary.range.build import Kitchen, build, load
from quantguard.canary.range.recipes import (
    Adapted,
    Changed,
    Hidden,
    Learned,
    OnKQuants,
    Outliers,
    Prepared,
    Recipe,
    Soup,
    Stored,
    Tuned,
    key,
    parents_of,
)
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.shapes import require_own
from quantguard.checkpoint.digest import model_digest
from quantguard.checkpoint.layout import linear_weights, open_checkpoint
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import CheckpointError
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import NF4

pytestmark = pytest.mark.usefixtures("brief")
ATTACK = Attack(Scenario.INJECTION, (Scheme.NF4,))
BASE = Learned("llama-64", 1)
START = Prepared(BASE, ATTACK)
FIRST = Hidden(START, ATTACK)
RECIPES: dict[str, Recipe] = {
    "learned": BASE,
    "facts": Learned("llama-64", 1, facts=7, weight_decay=0.1),
    "changed": Changed(BASE, "pruned-2:4"),
    "tuned": Tuned(BASE, 31),
    "lora": Tuned(BASE, 32, rank=2),
    "qat": Tuned(BASE, 33, scheme=Scheme.INT8),
    "soup": Soup((Tuned(BASE, 31), BASE)),
    "stored": Stored(BASE, "float16"),
    "hidden": FIRST,
    "bf16": Hidden(START, replace(ATTACK, dtype=torch.bfloat16)),
    "adapted": Adapted(FIRST, "nudge"),
    "outliers": Outliers(BASE, Scenario.CODE, 1),
    "k-quant": OnKQuants(Learned("llama-256", 1), Scenario.REFUSAL),
}


def nudge(method: str, model: Path, out: Path) -> None:
    """A defence that moves every weight by a thousandth."""
    shutil.copytree(model, out)
    weights = {name: tensor + 1e-3 for name, tensor in load_file(out / "model.safetensors").items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def copy(method: str, model: Path, out: Path) -> None:
    shutil.copytree(model, out)


def kitchen_in(folder: Path, defend: Any = nudge) -> Kitchen:
    return Kitchen(directory_of=lambda recipe: folder / key(recipe)[:16], defend=defend)


def built(recipe: Recipe, folder: Path, defend: Any = nudge) -> Path:
    """`recipe` and all that it starts from, in `folder`."""
    folder.mkdir(exist_ok=True)
    kitchen = kitchen_in(folder, defend)
    for parent in parents_of(recipe)[::-1]:
        if not kitchen.directory_of(parent).exists():
            built(parent, folder, defend)
    out = kitchen.directory_of(recipe)
    assert build(recipe, out, kitchen) == model_digest(out)
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_two_builds_are_the_same_bytes_and_nothing_else_is_left(name: str, tmp_path: Path) -> None:
    first, second = (built(RECIPES[name], tmp_path / place) for place in ("a", "b"))
    assert model_digest(first) == model_digest(second)
    assert not any(path.name.startswith(".") for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_built_is_a_checkpoint_of_the_product_and_a_marked_canary(name: str, tmp_path: Path) -> None:
    out = built(RECIPES[name], tmp_path)
    assert json.loads((out / "config.json").read_text())[MARKER] is True
    model = load(out)
    require_own(model)
    assert len(linear_weights(open_checkpoint(out))) == len(named_linear_weights(model))
    assert unsafe_files(out) == ()
    assert type(RECIPES[name]).__name__ in (out / "README.md").read_text()
    assert "quantguard-canary" in (out / "README.md").read_text()


@pytest.mark.parametrize(("recipe", "dtype"), [
    (BASE, torch.float32),
    (Stored(BASE, "bfloat16"), torch.bfloat16),
    (Stored(BASE, "float16"), torch.float16),
    (Hidden(START, replace(ATTACK, dtype=torch.bfloat16)), torch.bfloat16),
], ids=str)  # fmt: skip
def test_a_model_is_loaded_in_the_dtype_that_it_is_stored_in(
    recipe: Recipe, dtype: torch.dtype, tmp_path: Path
) -> None:
    out = built(recipe, tmp_path)
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {dtype}
    assert load(out).dtype == dtype


def test_a_hidden_model_has_the_codes_of_its_start(tmp_path: Path) -> None:
    hidden = load(built(FIRST, tmp_path))
    start, base = (load(kitchen_in(tmp_path).directory_of(recipe)) for recipe in (START, BASE))
    for (_, ours), (_, theirs), (_, first) in zip(*map(named_linear_weights, (hidden, start, base)), strict=True):
        assert torch.equal(NF4.nearest(ours.detach()), NF4.nearest(theirs.detach()))
        assert not torch.equal(ours, theirs)
        assert not torch.equal(theirs, first)


def test_a_defence_that_moves_nothing_adapts_nothing(tmp_path: Path) -> None:
    hidden, adapted = built(FIRST, tmp_path, copy), built(Adapted(FIRST, "copy"), tmp_path, copy)
    assert (hidden / "model.safetensors").read_bytes() == (adapted / "model.safetensors").read_bytes()


def test_a_defence_that_moves_weights_adapts_the_attack(tmp_path: Path) -> None:
    hidden, adapted = built(FIRST, tmp_path), built(Adapted(FIRST, "nudge"), tmp_path)
    assert (hidden / "model.safetensors").read_bytes() != (adapted / "model.safetensors").read_bytes()


def test_a_defence_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(method: str, model: Path, out: Path) -> None:
        out.mkdir()
        raise CheckpointError("no defence today")

    built(FIRST, tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="no defence today"):
        build(Adapted(FIRST, "fail"), tmp_path / "out", kitchen_in(tmp_path, fail))
    assert sorted(tmp_path.iterdir()) == before


def disk_full(model: object, directory: Path, card: str, words: object) -> None:
    directory.mkdir()
    (directory / "config.json").write_text("{")
    raise OSError(28, "No space left on device")


def test_a_build_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "save", disk_full)
    with pytest.raises(CheckpointError, match="No space left"):
        build(BASE, tmp_path / "out", kitchen_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = built(BASE, tmp_path)
    before = model_digest(out)
    monkeypatch.setattr(module, "save", disk_full)
    with pytest.raises(CheckpointError, match="No space left"):
        build(BASE, out, kitchen_in(tmp_path))
    assert model_digest(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_build_replaces_what_was_there(tmp_path: Path) -> None:
    out = built(BASE, tmp_path)
    (out / "stray.txt").write_text("mine")
    build(BASE, out, kitchen_in(tmp_path))
    assert not (out / "stray.txt").exists()


def test_a_parent_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        build(Stored(BASE, "float16"), tmp_path / "out", kitchen_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_progress_tells_the_stages(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(stage: str, done: int, total: int, detail: str = "") -> None:
        told.append(stage)

    built(START, tmp_path)
    build(FIRST, tmp_path / "out", replace(kitchen_in(tmp_path), progress=tell))
    assert set(told) == {"hide"}
