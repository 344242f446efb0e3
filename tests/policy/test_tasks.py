"""Tasks that a policy names: built in, in a file, in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from action.policy_files import read_needs
from quantguard.core.errors import PolicyError
from quantguard.policy.compare_inputs import compare_inputs
from quantguard.policy.load import load_policy, policy_problems
from tests.core.test_task_folder import ROW
from tests.core.test_task_folder import write as write_folder
from tests.policy.written import spoilt, write_policy

LINE = "- {task: built_in, max_drop: 0.5, limit: 100}"
FOLDER = spoilt(LINE, "- {task: quiz, path: tasks, max_drop: 0.9}")


def test_the_built_in_questions_are_inputs_by_what_they_hold(tmp_path: Path) -> None:
    one = load_policy(write_policy(tmp_path, spoilt(LINE, "- {task: builtin/python, max_drop: 0.5}")))
    every = load_policy(write_policy(tmp_path, spoilt(LINE, "- {task: builtin, max_drop: 0.5}")))
    of_task = [[file for file in policy.inputs if file.key == "benchmarks[1].task"] for policy in (one, every)]
    assert [len(files) for files in of_task] == [1, 5]
    assert of_task[0][0].digest in {file.digest for file in of_task[1]}
    assert one.inputs_digest != every.inputs_digest


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ("- {task: builtin/pyhton, max_drop: 0.5}", "benchmarks[1].task", "builtin/arithmetic"),
        ("- {task: builtin/reading, max_drop: 0.05}", "benchmarks[1].max_drop", "nothing lost of 48 questions"),
        ("- {task: builtin, max_drop: 0.01, limit: 2}", "benchmarks[1].max_drop", "nothing lost of 10 questions"),
        ("- {task: a/b, max_drop: 0.5}", "benchmarks[1].task", ""),
    ],
)
def test_a_task_that_is_not_there_or_shows_nothing_is_refused(line: str, key: str, said: str, tmp_path: Path) -> None:
    (problem,) = policy_problems(write_policy(tmp_path, spoilt(LINE, line)))
    assert problem.key == key
    assert said in str(problem)


def test_every_file_of_a_folder_is_an_input_and_mounted(tmp_path: Path) -> None:
    write_folder(tmp_path / "tasks")
    path = write_policy(tmp_path, FOLDER)
    loaded = load_policy(path)
    files = {file.path.relative_to(tmp_path).as_posix() for file in loaded.inputs if file.key == "benchmarks[1].path"}
    made_of = {"group.yaml", "one.yaml", "sub/two.yaml", "_template", "one.jsonl", "sub/two.jsonl", "sub/extra.jsonl"}
    assert files == {f"tasks/{name}" for name in made_of}
    mounted = {file.relative_to(tmp_path).as_posix() for file in read_needs(Path("policy.yaml"), tmp_path).files}
    assert files <= mounted
    assert "tasks/README.md" not in mounted
    (tmp_path / "tasks" / "_template").write_text((tmp_path / "tasks" / "_template").read_text() + "tag: x\n")
    assert load_policy(path).inputs_digest != loaded.inputs_digest


def test_a_folder_has_as_many_questions_as_its_test_splits(tmp_path: Path) -> None:
    write_folder(tmp_path / "tasks")
    text = FOLDER.replace("max_drop: 0.9", "max_drop: 0.1")
    (problem,) = policy_problems(write_policy(tmp_path, text))
    assert "nothing lost of 5 questions" in str(problem)
    (problem,) = policy_problems(write_policy(tmp_path, text.replace("max_drop: 0.1", "max_drop: 0.1, limit: 2")))
    assert "nothing lost of 4 questions" in str(problem)


def test_what_is_wrong_in_a_folder_is_told_at_its_line_and_at_that_of_the_policy(tmp_path: Path) -> None:
    write_folder(tmp_path / "tasks")
    (tmp_path / "tasks" / "one.yaml").write_text("task: quiz_one\nprocess_docs: !function utils.x\n")
    with pytest.raises(PolicyError) as raised:
        load_policy(write_policy(tmp_path, FOLDER))
    assert raised.value.key == "benchmarks[1].path"
    assert "one.yaml:2" in str(raised.value)


def test_other_questions_in_a_folder_are_told(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("before", "after")]
    for folder in folders:
        folder.mkdir()
        write_folder(folder / "tasks")
        write_policy(folder, FOLDER)
    (folders[1] / "tasks" / "one.jsonl").write_text(ROW.replace("buy", "bread") + ROW)
    changes = compare_inputs(*(load_policy(folder / "policy.yaml") for folder in folders))
    assert [change.rule for change in changes] == ["benchmarks.quiz.path"]
