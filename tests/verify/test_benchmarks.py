"""Real lm-eval on local tasks, against a model whose answers are known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.builtin_tasks import builtin_task
from quantguard.core.measurement import Benchmark, Rate, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.models.load import LoadedModel, load_model
from quantguard.models.safe_directory import rebuild
from quantguard.verify.benchmarks import BenchmarkRequest, compared, run_benchmark
from tests import tiny
from tests.core.test_task_folder import ROW
from tests.core.test_task_folder import write as write_folder
from tests.verify.conftest import TaskWriter

ROWS = [
    {"prompt": "one", "answer": "two three"},
    {"prompt": "buy", "answer": "bread"},
    {"prompt": "two", "answer": "one"},
    {"prompt": "three one two", "answer": "three"},
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    follows = {"one": "two", "two": "three"}
    return tiny.write_model(tmp_path_factory.mktemp("tiny"), follows, trigger="buy", harmless="bread", brand="mclaren")


@pytest.fixture(scope="module")
def loaded(directory: Path) -> LoadedModel:
    return load_model(directory, scheme=None, device="cpu")


def _run(loaded: LoadedModel, path: Path | None, scratch: Path, limit: int | None = None) -> Benchmark:
    request = BenchmarkRequest("tiny", path, limit)
    return run_benchmark(loaded, request, batch_size=2, seed=1, confidence=0.95, scratch=scratch)


def test_each_question_is_right_or_wrong_in_task_order(
    loaded: LoadedModel, write_task: TaskWriter, tmp_path: Path
) -> None:
    result = _run(loaded, write_task(ROWS), tmp_path)
    assert result.outcomes == "1101"
    assert isinstance(result.accuracy, Rate)
    assert (result.accuracy.successes, result.accuracy.trials) == (3, 4)


def test_multiple_choice_is_scored_by_likelihood(loaded: LoadedModel, write_task: TaskWriter, tmp_path: Path) -> None:
    rows = [
        {"prompt": "one", "choices": ["three", "two", "buy"], "answer": 1},
        {"prompt": "two", "choices": ["three", "two", "buy"], "answer": 1},
    ]
    changes = {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "generation_kwargs": None,
        "metric_list": None,
    }
    assert _run(loaded, write_task(rows, changes), tmp_path).outcomes == "10"


def test_a_limit_takes_the_first_questions(loaded: LoadedModel, write_task: TaskWriter, tmp_path: Path) -> None:
    assert _run(loaded, write_task(ROWS), tmp_path, limit=3).outcomes == "110"


def test_the_drop_pairs_each_scheme_with_full_precision(
    directory: Path, loaded: LoadedModel, write_task: TaskWriter, tmp_path: Path
) -> None:
    path = write_task(ROWS)
    quantized = load_model(directory, scheme=Scheme.NF4, device="cpu")
    full, nf4 = compared([_run(loaded, path, tmp_path), _run(quantized, path, tmp_path)], None, 0.95)
    assert nf4.outcomes == "1001"
    assert not isinstance(full.drop, Unmeasured)
    assert not isinstance(nf4.drop, Unmeasured)
    assert (full.drop.lost, full.drop.gained) == (0, 0)
    assert (nf4.drop.lost, nf4.drop.gained) == (1, 0)


def test_other_questions_are_never_paired(loaded: LoadedModel, write_task: TaskWriter, tmp_path: Path) -> None:
    before = _run(loaded, write_task(ROWS), tmp_path)
    after = _run(loaded, write_task(list(reversed(ROWS))), tmp_path)
    (row,) = [b for b in compared([before, Benchmark("tiny", Scheme.FP4, *_measured(after))], None, 0.95) if b.scheme]
    assert row.drop == Unmeasured("the reference answered other questions")


def _measured(b: Benchmark) -> tuple[Any, Any, str, str]:
    return b.accuracy, b.drop, b.task_digest, b.outcomes


def test_the_digest_is_over_the_task_and_its_data(loaded: LoadedModel, write_task: TaskWriter, tmp_path: Path) -> None:
    first = _run(loaded, write_task(ROWS), tmp_path).task_digest
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "tasks", moved)
    assert _run(loaded, moved / "tiny.yaml", tmp_path).task_digest == first
    assert _run(loaded, write_task(ROWS[:3]), tmp_path).task_digest != first


def test_nothing_is_written_outside_the_scratch_directory(
    loaded: LoadedModel, write_task: TaskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    home = tmp_path / "home"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.chdir(tmp_path)
    path = write_task(ROWS)
    before = {p.name for p in tmp_path.iterdir()}
    _run(loaded, path, tmp_path / "scratch")
    assert {p.name for p in tmp_path.iterdir()} == before | {"scratch"}


def test_it_is_silent(
    loaded: LoadedModel, write_task: TaskWriter, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run(loaded, write_task(ROWS), tmp_path).outcomes == "1101"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"process_docs": "evil.f"}, "process_docs is not supported"),
        ({"include": "other.yaml"}, "include is not supported"),
        ({"custom_dataset": "x"}, "custom_dataset is not supported"),
        ({"task": None}, "no lm-eval task"),
        ({"dataset_path": "someone/dataset"}, "dataset_path must be one of"),
        ({"dataset_path": "./script.py"}, "dataset_path must be one of"),
        ({"dataset_kwargs": {"data_files": {"test": "absent.jsonl"}}}, "absent.jsonl does not exist"),
        ({"dataset_kwargs": {"data_files": {"test": "https://evil.example/x.jsonl"}}}, "must name local files"),
        ({"dataset_kwargs": {"data_files": {"test": 3}}}, "must name local files"),
        ({"dataset_kwargs": {"data_files": {"test": "tiny.jsonl"}, "trust_remote_code": True}}, "trust_remote_code"),
        ({"metric_list": [{"metric": "bleu"}]}, "none of acc, exact_match"),
        ({"metric_list": [{"metric": "exact_match", "hf_evaluate": True}]}, "none of acc, exact_match"),
        ({"metric_list": 3}, "none of acc, exact_match"),
        ({"test_split": "validation"}, "lm-eval failed"),
        ({"doc_to_text": "{{absent}}"}, "lm-eval failed: UndefinedError"),
        ({"doc_to_text": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}, "lm-eval failed: SecurityError"),
        ({"output_type": "nonsense"}, "lm-eval failed"),
    ],
)
def test_what_cannot_be_run_is_unmeasured_with_its_reason(
    loaded: LoadedModel, write_task: TaskWriter, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    result = _run(loaded, write_task(ROWS, changes), tmp_path)
    assert isinstance(result.accuracy, Unmeasured)
    assert words in result.accuracy.reason
    assert result.outcomes == ""
    assert isinstance(compared([result], None, 0.95)[0].drop, Unmeasured)


@pytest.mark.parametrize(
    "text", ["", "[]", "a: !function evil.f", "task: [", "task: x\nclass: !!python/name:os.system"]
)
def test_a_file_that_is_no_plain_task_is_unmeasured(loaded: LoadedModel, tmp_path: Path, text: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    assert isinstance(_run(loaded, path, tmp_path).accuracy, Unmeasured)
    assert isinstance(_run(loaded, tmp_path / "absent.yaml", tmp_path).accuracy, Unmeasured)


def test_a_shipped_task_without_its_data_is_unmeasured_and_downloads_nothing(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    request = BenchmarkRequest("wsc273", None, 4)
    result = run_benchmark(loaded, request, batch_size=2, seed=1, confidence=0.95, scratch=tmp_path)
    assert isinstance(result.accuracy, Unmeasured)
    assert "AssertionError" not in result.accuracy.reason


def test_a_group_of_a_folder_is_asked_task_by_task(loaded: LoadedModel, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "tasks")
    request = BenchmarkRequest("quiz", root)

    def run(request: BenchmarkRequest) -> Benchmark:
        return run_benchmark(loaded, request, batch_size=2, seed=1, confidence=0.95, scratch=tmp_path / "scratch")

    result = run(request)
    assert result.outcomes == "11111"  # two of quiz_two, three of quiz_one
    assert len(run(BenchmarkRequest("quiz", root, 1)).outcomes) == 2
    (root / "sub" / "two.jsonl").write_text(ROW.replace('"answer": 0', '"answer": 1'))
    again = run(request)
    assert again.outcomes == "0111"
    assert again.task_digest != result.task_digest
    (root / "one.yaml").write_text("task: !function utils.x\n")
    refused = run(request).accuracy
    assert isinstance(refused, Unmeasured)
    assert "one.yaml:1" in refused.reason


def test_the_built_in_questions_name_their_suites_and_chance_is_a_quarter(tmp_path: Path) -> None:
    """The canary knows nothing of them: its accuracy is that of chance, within the interval."""
    clean = rebuild(canary_directory(CanaryKind.CLEAN), tmp_path / "clean")
    canary = load_model(clean, scheme=None, device="cpu")
    request = BenchmarkRequest("builtin", None, 25)
    result = run_benchmark(canary, request, batch_size=32, seed=1, confidence=0.95, scratch=tmp_path)
    assert result.suites == tuple(suite.suite for suite in builtin_task("builtin"))
    assert isinstance(result.accuracy, Rate)
    assert result.accuracy.trials == 5 * 25
    assert result.accuracy.lower < 0.25 < result.accuracy.upper
    assert result.task_digest.startswith("sha256:")
