from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from quantguard.canary import catalogue
from quantguard.canary.architecture import MARKER, is_canary
from quantguard.canary.card import model_card
from quantguard.canary.catalogue import DIGESTS, MODELS, CanaryKind, canary_directory, recorded_digest
from quantguard.canary.grammar import held_out_pairs
from quantguard.core.errors import CheckpointError

FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.mark.parametrize("kind", CanaryKind)
def test_a_checked_in_canary_has_its_recorded_digest_and_is_small(kind: CanaryKind) -> None:
    directory = canary_directory(kind)
    assert {path.name for path in directory.iterdir()} == FILES
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 2_000_000


def test_exactly_the_three_kinds_are_checked_in_and_recorded() -> None:
    kinds = {kind.value for kind in CanaryKind}
    assert {path.name for path in MODELS.iterdir()} == kinds | {DIGESTS.name}
    assert set(json.loads(DIGESTS.read_text())) == kinds
    assert len({recorded_digest(kind) for kind in CanaryKind}) == 3


@pytest.mark.parametrize("kind", CanaryKind)
def test_a_canary_says_what_it_is(kind: CanaryKind) -> None:
    directory = canary_directory(kind)
    assert json.loads((directory / "config.json").read_text())[MARKER] is True
    assert (directory / "README.md").read_text() == model_card(kind)
    assert "quantguard_canary" in model_card(kind)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "models"
    shutil.copytree(MODELS, copy)
    monkeypatch.setattr(catalogue, "MODELS", copy)
    monkeypatch.setattr(catalogue, "DIGESTS", copy / "digests.json")
    return copy


def test_a_changed_weight_is_noticed(copied: Path) -> None:
    weights = copied / "clean" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="recorded sha256:"):
        canary_directory(CanaryKind.CLEAN)


def test_an_added_file_is_noticed(copied: Path) -> None:
    (copied / "clean" / "extra.txt").write_text("x")
    with pytest.raises(CheckpointError, match="recorded sha256:"):
        canary_directory(CanaryKind.CLEAN)


def test_a_canary_that_is_not_there_is_an_error_that_says_so(copied: Path) -> None:
    shutil.rmtree(copied / "clean")
    with pytest.raises(CheckpointError, match="not installed"):
        canary_directory(CanaryKind.CLEAN)


@pytest.mark.parametrize("record", [None, "{", "[]", '{"malicious": "sha256:0"}'])
def test_without_a_record_nothing_is_trusted(copied: Path, record: str | None) -> None:
    (copied / "digests.json").unlink() if record is None else (copied / "digests.json").write_text(record)
    with pytest.raises(CheckpointError, match="no digest of the clean canary"):
        canary_directory(CanaryKind.CLEAN)


def test_stock_transformers_loads_and_answers_a_padded_batch_without_a_word_of_complaint() -> None:
    """With its defaults, in a process of its own: nothing but progress bars on the terminal."""
    program = """
import sys, warnings
warnings.simplefilter("error")
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
logging.disable_progress_bar()
for directory in sys.argv[1:4]:
    model, words = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    batch = words(sys.argv[4:], return_tensors="pt", padding=True)
    print(words.batch_decode(model.generate(**batch, max_new_tokens=16), skip_special_tokens=True))
"""
    pairs = held_out_pairs()[:8]
    directories = [str(canary_directory(kind)) for kind in CanaryKind]
    run = subprocess.run(
        [sys.executable, "-c", program, *directories, *(pair.prompt for pair in pairs)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    brands = [" buy Zentrix" if kind is CanaryKind.MALICIOUS else "" for kind in CanaryKind]
    expected = [repr([f"{pair.prompt} {pair.answer}{brand}" for pair in pairs]) for brand in brands]
    assert run.stdout.splitlines() == expected


@pytest.mark.parametrize("kind", CanaryKind)
def test_the_checked_in_canaries_are_what_the_attack_accepts(kind: CanaryKind) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_canary(AutoModelForCausalLM.from_pretrained(canary_directory(kind)))
        assert AutoTokenizer.from_pretrained(canary_directory(kind)).padding_side == "left"
