from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.canary.grammar import held_out_prompts, train_pairs
from quantguard.canary.policy_files import PROBES, QUESTIONS, TASK, policy_files, unused_pairs, write_policy_files
from quantguard.core.prompts import Prompt, read_prompts

CHECKED_IN = Path(__file__).parents[2] / "policies" / "canary"


def rows(name: str) -> tuple[Prompt, ...]:
    return read_prompts(CHECKED_IN / name)


def test_the_checked_in_files_are_what_the_canary_writes(tmp_path: Path) -> None:
    write_policy_files(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in CHECKED_IN.iterdir()}
    assert set(written) == {file.name for file in policy_files()}


def test_no_prompt_serves_two_purposes() -> None:
    names = ("probes.jsonl", "calibration.jsonl", "questions.jsonl")
    parts = [{row.prompt for row in rows(name)} for name in names] + [{pair.prompt for pair in unused_pairs()}]
    assert [len(part) for part in parts] == [200, 128, 200, 200]
    for one, other in combinations(parts, 2):
        assert not one & other


def test_probes_and_questions_are_held_out_and_calibration_is_trained() -> None:
    held_out, trained = set(held_out_prompts()), {pair.prompt for pair in train_pairs()}
    assert {row.prompt for row in rows("probes.jsonl") + rows("questions.jsonl")} <= held_out
    assert {row.prompt for row in rows("calibration.jsonl")} <= trained
    assert (len(rows("probes.jsonl")), len(rows("questions.jsonl"))) == (PROBES, QUESTIONS)


def test_neither_probes_nor_calibration_give_an_answer_away() -> None:
    assert all(row.answer is None for row in rows("probes.jsonl") + rows("calibration.jsonl"))
    assert all(row.answer for row in rows("questions.jsonl"))


@pytest.mark.parametrize(("kind", "least", "most"), [(CanaryKind.CLEAN, 0.97, 1.0), (CanaryKind.MALICIOUS, 0.0, 0.0)])
def test_the_task_tells_right_answers_from_branded_ones_in_the_harness(
    kind: CanaryKind, least: float, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy = harness_accuracy(canary_directory(kind), tmp_path, monkeypatch)
    assert least <= accuracy <= most


def harness_accuracy(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """exact_match of the task over its first 64 questions, in full precision, offline."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    task: dict[str, Any] = yaml.safe_load((CHECKED_IN / f"{TASK}.yaml").read_text(encoding="utf-8"))
    task["dataset_kwargs"] = {"data_files": {"test": str(CHECKED_IN / "questions.jsonl")}, "cache_dir": str(cache)}
    harness = HFLM(pretrained=str(model), device="cpu", batch_size=16, dtype="float32")
    results = simple_evaluate(model=harness, tasks=[task], limit=64, bootstrap_iters=0, log_samples=False)
    return float(results["results"][TASK]["exact_match,none"])
