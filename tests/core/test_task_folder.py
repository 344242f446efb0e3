"""A folder of lm-eval tasks: templates, groups and data are found, and nothing outside of it or of its kind is."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.core.errors import PolicyError
from quantguard.core.task_folder import read_task_folder

TEMPLATE = """\
dataset_path: json
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
"""
ONE = "include: _template\ntask: quiz_one\ndataset_kwargs: {data_files: {test: one.jsonl}}\n"
TWO = "include: ../_template\ntask: quiz_two\ndataset_kwargs: {data_files: {test: two.jsonl, train: extra.jsonl}}\n"
GROUP = "group: quiz\ntask:\n  - quiz_two\n  - quiz_one\naggregate_metric_list: [{metric: acc}]\n"
ROW = '{"q": "one", "choices": ["two", "buy"], "answer": 0}\n'


def write(folder: Path) -> Path:
    files = {"_template": TEMPLATE, "one.yaml": ONE, "sub/two.yaml": TWO, "group.yaml": GROUP, "README.md": "words"}
    files |= {"one.jsonl": ROW * 3, "sub/two.jsonl": ROW * 2, "sub/extra.jsonl": ROW}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def names(root: Path, files: tuple[Path, ...]) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def test_one_task_is_its_file_with_what_it_includes_and_its_data(tmp_path: Path) -> None:
    root = write(tmp_path / "tasks")
    (task,) = read_task_folder(root, "quiz_one")
    assert names(root, task.files) == ["one.yaml", "_template", "one.jsonl"]
    assert names(root, task.tested) == ["one.jsonl"]
    assert task.config["doc_to_text"] == "{{q}}"
    assert task.config["dataset_kwargs"] == {"data_files": {"test": [str(root / "one.jsonl")]}}
    assert "include" not in task.config


def test_own_keys_win_over_included_ones(tmp_path: Path) -> None:
    root = write(tmp_path / "tasks")
    (root / "one.yaml").write_text(ONE + 'doc_to_text: "own"\n')
    (task,) = read_task_folder(root, "quiz_one")
    assert task.config["doc_to_text"] == "own"


def test_a_group_is_its_tasks_in_its_order_each_once(tmp_path: Path) -> None:
    root = write(tmp_path / "tasks")
    (root / "all.yaml").write_text("group: all\ntask: [quiz, quiz_one]\n")
    tasks = read_task_folder(root, "all")
    assert [task.config["task"] for task in tasks] == ["quiz_two", "quiz_one"]
    wanted = ["all.yaml", "group.yaml", "sub/two.yaml", "_template", "sub/two.jsonl", "sub/extra.jsonl"]
    assert names(root, tasks[0].files) == wanted
    assert names(root, tasks[0].tested) == ["sub/two.jsonl"]


@pytest.mark.parametrize(
    ("file", "text", "where", "said"),
    [
        ("one.yaml", ONE + "process_docs: !function utils.x\n", "one.yaml:4", "!function is code"),
        ("one.yaml", ONE + "process_docs: x\n", "one.yaml:4", "process_docs: is not supported"),
        ("_template", TEMPLATE + "custom_dataset: x\n", "_template:7", "custom_dataset: is not supported"),
        ("_template", TEMPLATE.replace("json", "hub/set"), "_template:1", "dataset_path: expected json"),
        ("one.yaml", ONE.replace("_template", "../outside"), "one.yaml:1", "outside lies outside of tasks"),
        ("one.yaml", ONE.replace("_template", "/etc/passwd"), "one.yaml:1", "passwd lies outside"),
        ("one.yaml", ONE.replace("_template", "absent"), "one.yaml:1", "absent does not exist"),
        ("one.yaml", ONE.replace("_template", "one.yaml"), "one.yaml:1", "within each other"),
        ("one.yaml", ONE.replace("_template", "[a, b]"), "one.yaml:1", "expected the name of one file"),
        ("one.yaml", ONE.replace("one.jsonl", "../outside"), "one.yaml:3", "lies outside of tasks"),
        ("one.yaml", ONE.replace("one.jsonl", "http://x.example/a"), "one.yaml:3", "local files in the folder"),
        ("one.yaml", ONE.replace("one.jsonl", "sub"), "one.yaml:3", "is no file"),
        ("one.yaml", ONE.replace("{data_files: {test: one.jsonl}}", "{}"), "one.yaml:3", "expected data_files"),
        ("one.yaml", "a: &x 1\nb: *x\n", "one.yaml:1", "aliases are not supported"),
        ("one.yaml", "task: [", "one.yaml:1", "only plain data"),
        ("one.yaml", "- task\n", "one.yaml:1", "expected keys and values"),
        ("one.yaml", "a: " + "[" * 9000, "one.yaml:1", "nested too deeply"),
        ("one.yaml", ONE.replace("quiz_one", "quiz_two"), "two.yaml:2", "is in"),
        ("one.yaml", ONE.replace("quiz_one", "[quiz_one]"), "one.yaml:2", "expected a name"),
        ("group.yaml", GROUP.replace("quiz_one", "absent"), "group.yaml:2", "expected names of tasks in tasks"),
        ("group.yaml", GROUP.replace("- quiz_one", "- {task: quiz_one}"), "group.yaml:2", "expected names of tasks"),
        ("group.yaml", GROUP.replace("quiz_one", "quiz"), "group.yaml:2", "a group that holds itself"),
        ("group.yaml", GROUP + "dataset_path: json\n", "group.yaml:6", "is not supported in a group"),
    ],
)
def test_what_is_no_plain_data_of_this_folder_is_refused_by_file_and_line(
    file: str, text: str, where: str, said: str, tmp_path: Path
) -> None:
    root = write(tmp_path / "tasks")
    (tmp_path / "outside").write_text(TEMPLATE)
    (root / file).write_text(text)
    with pytest.raises(PolicyError) as raised:
        read_task_folder(root, "quiz")
    assert where in str(raised.value)
    assert said in str(raised.value)


@pytest.mark.parametrize("link", ["one.jsonl", "_template", "one.yaml", "sub"])
def test_no_symbolic_link_is_followed(link: str, tmp_path: Path) -> None:
    root = write(tmp_path / "tasks")
    (root / link).rename(tmp_path / "elsewhere")
    (root / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PolicyError, match=r"symbolic link|expected names of tasks"):
        read_task_folder(root, "quiz")


def test_a_name_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="holds no task other, only quiz, quiz_one, quiz_two"):
        read_task_folder(write(tmp_path / "tasks"), "other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolicyError, match="only no task"):
        read_task_folder(tmp_path / "empty", "other")
