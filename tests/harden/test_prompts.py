"""Where calibration prompts come from: the neutral set, a file, the model itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.checkpoint.digest import model_digest
from quantguard.core.builtin_tasks import TASKS_FOLDER
from quantguard.core.calibration import (
    DEFAULT_SAMPLES,
    NEUTRAL_FOLDER,
    CalibrationSet,
    Sampled,
    neutral_prompts,
    read_calibration,
    source_word,
)
from quantguard.core.errors import HardenError, ModelLoadError, PromptsError, UsageError
from quantguard.core.hardening import CalibrationUsed
from quantguard.core.prompts import read_prompts
from quantguard.core.scheme import Scheme
from quantguard.core.suites import SUITES_FOLDER
from quantguard.harden.harden import HardenRequest, harden
from quantguard.harden.prompts import sampled_prompts
from quantguard.models.load import LoadedModel, load_model
from quantguard.models.safe_directory import rebuild

PROBLEMS = TASKS_FOLDER.parent / "problems"
DIGEST = "sha256:21f50750ff660a6fe2ecf4cca07f1f5a77bb6d2595263e3daed1e6dae51bcd95"  # of version 1


def measured() -> Iterator[str]:
    """Every built-in probe, question and problem."""
    for file in [file for folder in (SUITES_FOLDER, TASKS_FOLDER, PROBLEMS) for file in folder.glob("*.jsonl")]:
        rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
        yield from (row.get("prompt") or row["question"] for row in rows)


def shown(row: str) -> str:
    """The prompt with its line ends and tabs as spaces."""
    return row.replace("\n", " ").replace("\t", " ")


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Words that both have, as a share of all that they have."""
    return len(one & other) / len(one | other)


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    clean = rebuild(canary_directory(CanaryKind.CLEAN), tmp_path_factory.mktemp("clean") / "model")
    return load_model(clean, scheme=None, device="cpu")


def test_the_neutral_set_is_large_short_and_small_on_disk() -> None:
    rows = [prompt.prompt for prompt in neutral_prompts()]
    assert len(rows) >= 512
    assert all(4 <= len(row.split()) <= 60 and len(row) <= 400 and row.isprintable() for row in map(shown, rows))
    assert sum(file.stat().st_size for file in NEUTRAL_FOLDER.iterdir()) < 100_000
    code = {prompt.prompt for prompt in read_prompts(NEUTRAL_FOLDER / "code.jsonl")}
    assert len(code) >= 200
    assert sum("ython" in row or "def " in row or "import " in row for row in code) > len(code) / 2


def test_no_two_prompts_are_alike() -> None:
    rows = [words(prompt.prompt) for prompt in neutral_prompts()]
    assert max(likeness(one, other) for one, other in combinations(rows, 2)) < 0.6
    assert all(prompt.answer is None for prompt in neutral_prompts())


def test_nothing_is_calibrated_on_that_is_measured() -> None:
    rows = [words(prompt.prompt) for prompt in neutral_prompts()]
    asked = [words(text) for text in measured()]
    assert len(asked) > 1400
    assert max(likeness(row, probe) for row in rows for probe in asked) < 0.6


def test_other_rows_are_another_version() -> None:
    chosen = read_calibration("neutral")
    assert isinstance(chosen, CalibrationSet)
    assert (chosen.source, chosen.digest) == ("neutral/1", DIGEST), "raise NEUTRAL_VERSION, then pin the new digest"


@pytest.mark.parametrize("count", [32, 128, 512])
def test_the_first_prompts_have_the_proportions_of_the_whole(count: int) -> None:
    code = {prompt.prompt for prompt in read_prompts(NEUTRAL_FOLDER / "code.jsonl")}
    chosen = read_calibration("neutral", count)
    assert isinstance(chosen, CalibrationSet)
    assert len(chosen.prompts) == count
    share = len(code) / len(neutral_prompts())
    assert abs(sum(prompt.prompt in code for prompt in chosen.prompts) - share * count) <= 1


def test_a_file_is_read_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "b"}\n{"prompt": "a"}\n{"prompt": "c"}\n', encoding="utf-8")
    chosen = read_calibration(str(file), 2)
    assert isinstance(chosen, CalibrationSet)
    assert [prompt.prompt for prompt in chosen.prompts] == ["b", "a"]
    assert chosen.source == str(file)
    assert read_calibration(str(file)) != chosen


def test_more_than_there_are_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "b"}\n', encoding="utf-8")
    with pytest.raises(PromptsError, match=r"own\.jsonl: 1 prompts are there, and 2 were asked for"):
        read_calibration(str(file), 2)
    with pytest.raises(PromptsError, match="and 10000 were asked for"):
        read_calibration("neutral", 10_000)


def test_the_model_is_asked_later() -> None:
    assert read_calibration("self") == Sampled(DEFAULT_SAMPLES)
    assert read_calibration("self", 7) == Sampled(7)


def test_a_model_gives_the_same_texts_for_a_seed_and_fewer_are_the_first(canary: LoadedModel) -> None:
    state = torch.get_rng_state()
    some = sampled_prompts(canary, 40, seed=3)
    torch.rand(5)
    assert sampled_prompts(canary, 9, seed=3) == some[:9]
    assert sampled_prompts(canary, 9, seed=4) != some[:9]
    torch.set_rng_state(state)
    sampled_prompts(canary, 1, seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_sampled_texts_differ_and_are_short(canary: LoadedModel) -> None:
    told: list[tuple[str, int, int]] = []

    def hear(stage: str, done: int, total: int, detail: str = "") -> None:
        told.append((stage, done, total))

    texts = [prompt.prompt for prompt in sampled_prompts(canary, 64, seed=0, progress=hear)]
    assert len(set(texts)) == len(texts) == 64
    assert all(text.strip() == text != "" for text in texts)
    assert all(1 <= len(canary.tokenizer(text)["input_ids"]) <= 24 for text in texts)
    assert min(len(canary.tokenizer(text)["input_ids"]) for text in texts) < 24, "none has ended by itself"
    assert told[-1] == ("sample", 64, 64)


def changed(loaded: LoadedModel, **tokens: int | None) -> LoadedModel:
    """The same model with another tokenizer."""
    return replace(loaded, tokenizer=_Tokenizer(loaded.tokenizer, tokens))  # type: ignore[arg-type]  # a fake


class _Tokenizer:
    def __init__(self, real: object, tokens: dict[str, int | None]) -> None:
        self._real, self._tokens = real, tokens

    def __getattr__(self, name: str) -> object:
        return self._tokens[name] if name in self._tokens else getattr(self._real, name)


def test_a_model_without_a_beginning_is_refused(canary: LoadedModel) -> None:
    with pytest.raises(HardenError, match="nothing to sample from") as refused:
        sampled_prompts(changed(canary, bos_token_id=None, eos_token_id=None), 4, seed=0)
    assert "neutral set" in refused.value.remedy
    with pytest.raises(HardenError, match="token 500, but the embedding has 79 rows"):
        sampled_prompts(changed(canary, bos_token_id=500), 4, seed=0)


def test_a_model_that_says_nothing_or_fails_is_refused(canary: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def mute(*, input_ids: torch.Tensor, **_: object) -> torch.Tensor:
        return input_ids.repeat(1, 3)

    def broken(**_: object) -> torch.Tensor:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(canary.model, "generate", mute)
    with pytest.raises(HardenError, match="only empty texts"):
        sampled_prompts(canary, 4, seed=0)
    monkeypatch.setattr(canary.model, "generate", broken)
    with pytest.raises(ModelLoadError, match="could not be sampled: RuntimeError: no such thing"):
        sampled_prompts(canary, 4, seed=0)


def test_harden_samples_from_the_model_that_it_has_and_says_what_it_calibrated_on(
    canary: LoadedModel, tmp_path: Path
) -> None:
    chosen = CalibrationSet("self/2", sampled_prompts(canary, 5, seed=2))
    stages: list[str] = []

    def hear(stage: str, done: int, total: int, detail: str = "") -> None:
        stages.append(stage)

    for name, calibration in (("sampled", Sampled(5)), ("given", chosen), ("bare", chosen.prompts)):
        asked = HardenRequest((Scheme.NF4,), calibration, method="auto", max_new_tokens=8, seed=2)
        summary = harden(canary_directory(CanaryKind.NF4_ATTACKED), tmp_path / name, asked, progress=hear)
        assert ("sample" in stages) == (name == "sampled")
        stages.clear()
        used = summary.calibration
        if name == "bare":
            assert used == CalibrationUsed("given", 5, chosen.digest)
        elif name == "given":
            assert used == CalibrationUsed("self/2", 5, chosen.digest)
        else:  # by the attacked canary, and not by the clean one
            assert used is not None
            assert (used.source, used.count) == ("self/2", 5)
    assert model_digest(tmp_path / "given") == model_digest(tmp_path / "bare")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "given", "sampled"]


@pytest.mark.parametrize(("out", "method"), [("", "auto"), ("new", "magic")])
def test_what_is_refused_is_refused_before_anything_is_sampled(out: str, method: str, tmp_path: Path) -> None:
    def hear(stage: str, done: int, total: int, detail: str = "") -> None:
        raise AssertionError(stage)

    asked = HardenRequest((Scheme.NF4,), Sampled(5), method=method)
    with pytest.raises(UsageError):
        harden(canary_directory(CanaryKind.CLEAN), tmp_path / out, asked, progress=hear)


def test_the_source_of_a_set_leads_to_it_again() -> None:
    assert [source_word(source) for source in ("neutral/1", "self/7", "neutral", "sets/own.jsonl")] == [
        "neutral",
        "self",
        "neutral",
        "sets/own.jsonl",
    ]
