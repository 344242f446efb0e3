"""Answers that are kept are not asked for again; what would give other answers is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quantguard.core.scheme import Scheme
from quantguard.models import generate as generation
from quantguard.models.generate import generate
from quantguard.models.kept import AnswerFile, KeptAnswers
from quantguard.models.load import LoadedModel, load_model
from tests import tiny

PROMPTS = ["one", "two", "three", "one one", "two\nlines", "half of a character \ud800"]
KEPT = KeptAnswers(Path(), "sha256:1", "cpu", (("torch", "2"),))


class Killed(BaseException):
    """As by a signal."""


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedModel:
    directory = tiny.write_model(
        tmp_path / "m", {"one": "two", "two": "three", "three": "four"}, trigger="buy", harmless="bread", brand="x"
    )
    return load_model(directory, scheme=None, device="cpu", kept=replace(KEPT, folder=tmp_path / "kept"))


def asked_of(monkeypatch: pytest.MonkeyPatch, *, most: int = 100) -> list[int]:
    """How many rows each batch has; the process is killed at the one after `most` batches."""
    real, sizes = generation._answer, list[int]()

    def counted(loaded: LoadedModel, rows: list[list[int]], settings: object) -> list[str]:
        if len(sizes) == most:
            raise Killed
        sizes.append(len(rows))
        return real(loaded, rows, settings)  # type: ignore[arg-type]  # settings pass through

    monkeypatch.setattr(generation, "_answer", counted)
    return sizes


def answers_of(loaded: LoadedModel, *, new: int = 4) -> tuple[str, ...]:
    return generate(loaded, PROMPTS[:-1], max_new_tokens=new, batch_size=2)


def test_what_was_answered_is_not_asked_again(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = answers_of(loaded)
    sizes = asked_of(monkeypatch)
    assert answers_of(loaded) == first
    assert generate(loaded, ["two", "loop"], max_new_tokens=4, batch_size=2)[0] == "three four"
    assert sizes == [1]


def test_a_killed_run_goes_on_with_the_next_batch(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answers_of(replace(loaded, kept=None))
    asked_of(monkeypatch, most=1)
    with pytest.raises(Killed):
        answers_of(loaded)
    monkeypatch.undo()
    sizes = asked_of(monkeypatch)
    assert answers_of(loaded) == whole
    assert sum(sizes) == len(PROMPTS[:-1]) - 2


def test_a_line_that_was_never_finished_costs_its_own_answer_alone(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "kept.jsonl")
    file.add((prompt, f"answer to {number}") for number, prompt in enumerate(PROMPTS[:3]))
    file.path.write_text(file.path.read_text()[:-20])
    file.add([(PROMPTS[5], "half \udfff")])
    assert sorted(file.read().values()) == ["answer to 0", "answer to 1", "half \udfff"]


@pytest.mark.parametrize("line", ["{}", "[1, 2]", '["a"]', "[" * 5000, "null", '["a", "b", "c"]', "\x00"])
def test_what_is_no_answer_is_none(line: str, tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "kept.jsonl")
    file.path.write_text(line + "\n")
    assert file.read() == {}


@pytest.mark.parametrize(
    "other",
    [
        KEPT.of(Scheme.NF4, 8),
        KEPT.of(Scheme.NF4_DOUBLE, 8),
        KEPT.of(None, 9),
        replace(KEPT, model_digest="sha256:2").of(None, 8),
        replace(KEPT, device="cuda:0 NVIDIA H200").of(None, 8),
        replace(KEPT, versions=(("torch", "3"),)).of(None, 8),
    ],
)
def test_what_may_answer_otherwise_has_a_file_of_its_own(other: AnswerFile) -> None:
    assert other != KEPT.of(None, 8)
