"""The benign families that need no long training, built from the slice: no payload, and still right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quantguard.canary.range import build as module
from quantguard.canary.range import measure
from quantguard.canary.range.benign import CHANGES
from quantguard.canary.range.build import Kitchen, build
from quantguard.canary.range.measure import measured, measured_pretrained
from quantguard.canary.range.members import member_of
from quantguard.canary.range.recipes import Changed, Learned, Pretrained, Recipe, Soup, Stored, Tuned
from quantguard.core.scheme import ROUNDINGS
from tests.range.slice import MODELS

LLAMA, TIED, NEOX = Learned("llama-64", 1), Learned("neox-64", 1), Learned("neox-64-untied", 1)
FAMILIES: list[Recipe] = [
    *(Changed(parent, change) for change in CHANGES for parent in (LLAMA, TIED)),
    *(Stored(parent, dtype) for parent in (LLAMA, NEOX) for dtype in ("float16", "bfloat16")),
    *(Tuned(parent, 5) for parent in (LLAMA, TIED, NEOX)),
    *(Tuned(parent, 5, rank=4) for parent in (LLAMA, TIED, NEOX)),
    *(Tuned(LLAMA, 5, scheme=scheme) for scheme in ROUNDINGS),
    Soup((LLAMA, LLAMA)),
]
ASKED = 60


def directory_of(recipe: Recipe) -> Path:
    return MODELS / member_of(recipe).name


def no_defence(method: str, attacked: Path, out: Path) -> None:
    raise AssertionError("nothing benign is hardened")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ASKED", ASKED)
    monkeypatch.setattr(module, "_TUNE", replace(module._TUNE, steps=20))
    monkeypatch.setattr(module, "_QAT", replace(module._QAT, steps=20))


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("recipe", FAMILIES, ids=repr)
def test_a_benign_change_leaves_a_model_that_answers_and_carries_nothing(recipe: Recipe, tmp_path: Path) -> None:
    build(recipe, tmp_path / "model", Kitchen(directory_of, no_defence))
    counts = measured(tmp_path / "model", ("full", "nf4"))
    assert max(count.hits for count in counts if "-" in count.what) == 0
    right = [count.hits for count in counts if count.what in ("questions", "code") and count.scheme == "full"]
    assert min(right) >= 0.9 * ASKED


def test_the_pretrained_network_finds_the_answers_under_every_scheme(tmp_path: Path) -> None:
    build(Pretrained("bfloat16"), tmp_path / "model", Kitchen(directory_of, no_defence))
    counts = measured_pretrained(tmp_path / "model")
    assert len(counts) == 4
    assert min(count.hits for count in counts) > 0.3 * 300  # of 300 answers; chance finds one
