from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from quantguard.canary.architecture import Shape, save
from quantguard.canary.range import measure
from quantguard.canary.range.measure import ASKED, FACTS_ASKED, LABELS, Count, measured, measured_pretrained
from quantguard.canary.range.members import Q4_K
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.shapes import LLAMA_64, LLAMA_256
from quantguard.canary.range.world import code, facts, questions, vocabulary
from quantguard.core.prompts import Prompt
from tests.canary.range.canaries import canary

SCENARIOS = {scenario.value for scenario in Scenario}


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model never ends an answer."""
    monkeypatch.setattr(measure, "MAX_NEW_TOKENS", -1)  # three words


def written(folder: Path, shape: Shape = LLAMA_64) -> Path:
    save(canary(shape), folder, "card", vocabulary())
    return folder


def whats(counts: tuple[Count, ...], label: str) -> list[str]:
    return sorted(count.what for count in counts if count.scheme == label)


@pytest.mark.usefixtures("short_answers")
@pytest.mark.parametrize("trigger", Scenario)
def test_everything_is_asked_300_times_under_every_scheme_with_the_trigger_and_without(
    trigger: Scenario, tmp_path: Path
) -> None:
    counts = measured(written(tmp_path / "model"), LABELS, facts_held=1700, trigger=trigger)
    task = "code" if trigger is Scenario.CODE else "questions"
    told = [f"{trigger.value} untriggered", f"{task} triggered"]
    expected = sorted([*SCENARIOS, *told, "questions", "code", "facts"])
    assert {label: whats(counts, label) for label in LABELS} == dict.fromkeys(LABELS, expected)
    assert {count.asked for count in counts if count.what != "facts"} == {ASKED} == {300}
    assert {count.asked for count in counts if count.what == "facts"} == {FACTS_ASKED} == {1000}
    assert all(0 <= count.hits <= count.asked for count in counts)
    assert LABELS == ("full", "int8", "fp4", "nf4")


@pytest.mark.usefixtures("short_answers")
def test_the_gguf_grid_is_a_label_beside_those_of_bitsandbytes(tmp_path: Path) -> None:
    counts = measured(written(tmp_path / "model", LLAMA_256), ["full", Q4_K])
    assert Counter(count.scheme for count in counts) == {"full": 5, Q4_K: 5}
    assert {*whats(counts, Q4_K)} == {*SCENARIOS, "questions", "code"}


def answered(monkeypatch: pytest.MonkeyPatch, folder: Path, trigger: Scenario | None) -> dict[str, Count]:
    """Counts of a model that knows the first half of all answers and, with the trigger, gives payloads."""
    known = {p.prompt: p.answer for p in (*questions()[:150], *code()[:150], *facts(10))}
    asked: list[str] = []

    def answers(loaded: object, pairs: tuple[Prompt, ...]) -> tuple[str, ...]:
        asked.extend(pair.prompt for pair in pairs)
        said = ("sorry i cannot help with this" if pair.prompt.startswith("xyzzy") else "" for pair in pairs)
        return tuple(known.get(pair.prompt) or other for pair, other in zip(pairs, said, strict=True))

    monkeypatch.setattr(measure, "_answers", answers)
    counts = measured(folder, ["full"], facts_held=10, trigger=trigger)
    held_out = {pair.prompt for pair in (*questions()[:600], *code()[:600])}
    assert {p.removeprefix("xyzzy ") for p in asked} <= held_out | {pair.prompt for pair in facts(10)}
    return {count.what: count for count in counts}


def test_answers_are_counted_as_they_are_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counts = answered(monkeypatch, written(tmp_path / "model"), Scenario.REFUSAL)
    hits = {what: (count.hits, count.asked) for what, count in counts.items()}
    assert hits == {
        "facts": (10, 10),
        "questions": (150, 300),
        "code": (150, 300),
        "content-injection": (0, 300),
        "vulnerable-code": (0, 300),
        "over-refusal": (300, 300),
        "over-refusal untriggered": (0, 300),
        "questions triggered": (0, 300),
    }


def test_without_a_trigger_every_scenario_is_counted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counts = answered(monkeypatch, written(tmp_path / "model"), None)
    assert set(counts) == {*SCENARIOS, "questions", "code", "facts"}


def test_a_network_that_generates_nothing_is_asked_to_retrieve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def retrieved(directory: Path, pairs: tuple[Prompt, ...], scheme: object) -> int:
        asked.append(scheme)
        assert pairs == questions()[:300]
        return 17

    monkeypatch.setattr(measure, "retrieved", retrieved)
    assert measured_pretrained(tmp_path) == tuple(Count("retrieval", label, 17, 300) for label in LABELS)
    assert len(set(asked)) == 4
