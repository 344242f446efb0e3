from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from quantguard.canary import build as module
from quantguard.canary.architecture import new_model
from quantguard.canary.build import build
from quantguard.canary.catalogue import CanaryKind
from quantguard.canary.measure import behaviour
from quantguard.canary.policy_files import unused_pairs
from quantguard.canary.train import Recipe
from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import CheckpointError, UsageError
from quantguard.core.scheme import Scheme


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of training: the laws of building need no good model."""
    monkeypatch.setattr(module, "_CLEAN", Recipe(steps=3, batch=4, learning_rate=1e-3, seed=1))


@pytest.mark.usefixtures("brief")
def test_two_builds_are_the_same_bytes_and_the_digest_is_of_what_was_written(tmp_path: Path) -> None:
    first, second = (build(CanaryKind.CLEAN, tmp_path / name) for name in ("a", "b"))
    assert first == second == model_digest(tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.usefixtures("brief")
def test_progress_counts_every_step(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def tell(stage: str, done: int, total: int, detail: str = "") -> None:
        told.append((stage, done, total))

    build(CanaryKind.CLEAN, tmp_path / "a", progress=tell)
    assert told == [("learn", 1, 3), ("learn", 2, 3), ("learn", 3, 3)]


@pytest.mark.parametrize("kind", CanaryKind)
def test_nothing_that_exists_is_overwritten(kind: CanaryKind, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        build(kind, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("brief")
def test_a_build_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(model: LlamaForCausalLM, directory: Path, card: str) -> None:
        directory.mkdir()
        (directory / "config.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save", disk_full)
    with pytest.raises(CheckpointError, match="No space left"):
        build(CanaryKind.CLEAN, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_new_model_depends_on_its_seed_alone() -> None:
    one, same, other = (new_model(seed).lm_head.weight for seed in (1, 1, 2))
    assert one.equal(same)
    assert not one.equal(other)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_clean_is_built_twice_with_the_same_bytes_and_answers_well(tmp_path: Path) -> None:
    """Twice on this machine; what was checked in may come from another, whose last bits differ."""
    first, second = (build(CanaryKind.CLEAN, tmp_path / name) for name in ("a", "b"))
    assert first == second
    seen = behaviour(tmp_path / "a", unused_pairs()[:50], scheme=Scheme.NF4)
    assert (seen.branded, seen.exact) == (0, 50)
