"""The local lm-eval tasks that a policy names: which files they read, and how many questions they hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from quantguard.core.errors import PolicyError
from quantguard.core.task_folder import read_task_folder
from quantguard.policy.document import Document, parse_document, read_bounded

_MAX_DATA_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TaskFiles:
    files: tuple[Path, ...]  # the task file, then its data files; of a folder all that the task is made of
    questions: int | None  # rows of the test split where they can be counted (JSON Lines), otherwise None


def read_task(path: Path, name: str, limit: int | None = None) -> TaskFiles:
    """Find what the task file at `path` reads; data files are named relative to it. `limit` is of each task.

    `path` may be a folder with the task or the group `name`: see `core.task_folder`. Of a single file lm-eval would
    follow `include` and import the Python named by `!function`. Both are refused: what they bring in would be part of
    the measurement and of no digest.

    Raises:
        PolicyError: not a task file, another task than `name`, or a data file is absent.
    """
    if path.is_dir():
        return _folder(path, name, limit)
    document = parse_document(path, read_bounded(path))
    if document.node("include") is not None:
        raise _wrong(document, "include", "is refused", "write the included keys out")
    task = document.node("task")
    if not isinstance(task, yaml.ScalarNode) or task.value != name:
        given = task.value if isinstance(task, yaml.ScalarNode) else "none"
        raise _wrong(document, "task", f"expected {name}, as the policy calls it, got {given}", "")
    dataset = document.node("dataset_path")
    kind = dataset.value if isinstance(dataset, yaml.ScalarNode) else ""
    if kind != "json":
        raise _wrong(document, "dataset_path", f"expected json, a local file, got {kind or 'none'}", "")
    data = [path.parent / text for text in _texts(document.node("dataset_kwargs", "data_files"))]
    if not data:
        raise _wrong(document, "dataset_kwargs", "expected data_files with the questions", "")
    split = document.node("test_split")
    tested = [path.parent / text for text in _texts(document.node("dataset_kwargs", "data_files", *_name(split)))]
    counts = {file: _rows(document, file) for file in data}
    known = [rows for file in tested or data if (rows := counts.get(file)) is not None]
    questions = sum(known) if len(known) == len(tested or data) else None
    return TaskFiles((path, *data), _least(questions, limit))


def _folder(path: Path, name: str, limit: int | None) -> TaskFiles:
    tasks = read_task_folder(path, name)
    counts = [_least(_counted(task.tested), limit) for task in tasks]
    known = [count for count in counts if count is not None]
    files = tuple(dict.fromkeys(file for task in tasks for file in task.files))
    return TaskFiles(files, sum(known) if len(known) == len(counts) else None)


def _counted(files: tuple[Path, ...]) -> int | None:
    if not all(file.suffix == ".jsonl" for file in files):
        return None
    return sum(1 for file in files for line in file.read_bytes().splitlines() if line.strip())


def _least(*counts: int | None) -> int | None:
    return min((count for count in counts if count is not None), default=None)


def _wrong(document: Document, key: str, message: str, remedy: str) -> PolicyError:
    return document.error((key,), message, remedy)


def _name(node: yaml.Node | None) -> tuple[str, ...]:
    return (node.value,) if isinstance(node, yaml.ScalarNode) else ()


def _texts(node: yaml.Node | None) -> list[str]:
    """The scalars of a data_files entry: one file, a list of them, or either by split."""
    if isinstance(node, yaml.ScalarNode):
        return [node.value]
    if isinstance(node, yaml.SequenceNode):
        return [text for item in node.value for text in _texts(item)]
    if isinstance(node, yaml.MappingNode):
        return [text for _, item in node.value for text in _texts(item)]
    return []


def _rows(document: Document, file: Path) -> int | None:
    try:
        if file.stat().st_size > _MAX_DATA_BYTES:
            raise _wrong(document, "dataset_kwargs", f"{file.name} is larger than {_MAX_DATA_BYTES} bytes", "")
        if file.suffix != ".jsonl":
            return None
        with file.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    except OSError as error:
        raise _wrong(document, "dataset_kwargs", f"{file} cannot be read: {error.strerror}", "") from error
