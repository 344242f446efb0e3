"""A folder of lm-eval tasks, read as data: YAML files, what they include, groups, and the data files beside them.

Nothing is followed out of the folder, no symbolic link is followed at all, and what would run code is refused: a
`!function` is no plain YAML, and keys that name code or other data are none of `TASK_KEYS`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from quantguard.core.errors import PolicyError

# Everything else of lm-eval's task format loads code or other files: process_docs, custom_dataset, class ...
TASK_KEYS: Final = frozenset(
    {
        *("task", "task_alias", "tag", "metadata", "description", "output_type", "repeats", "num_fewshot"),
        *("dataset_path", "dataset_name", "dataset_kwargs"),
        *("training_split", "validation_split", "test_split", "fewshot_split", "fewshot_config"),
        *("doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix", "target_delimiter", "fewshot_delimiter"),
        *("metric_list", "filter_list", "generation_kwargs"),
    }
)
_GROUP_KEYS: Final = frozenset({"group", "group_alias", "task", "tag", "aggregate_metric_list", "metadata"})
_MAX_BYTES: Final = 1024 * 1024  # of a YAML file
_MAX_DATA_BYTES: Final = 256 * 1024 * 1024
_MAX_FILES: Final = 1000
_MAX_DEPTH: Final = 8  # of files that include each other, and of groups
_MAX_NESTED: Final = 32  # collections of YAML within each other


@dataclass(frozen=True, slots=True)
class FolderTask:
    """One task of a folder."""

    config: Mapping[str, Any]  # merged with what it includes; data files absolute
    files: tuple[Path, ...]  # all it is made of: its YAML, what that includes, its data
    tested: tuple[Path, ...]  # data files of the test split


@dataclass(frozen=True, slots=True)
class _Read:
    """A YAML file with what it includes."""

    path: Path
    values: dict[str, Any]
    lines: dict[str, tuple[Path, int]]  # where each key is written
    files: tuple[Path, ...]

    def wrong(self, key: str, message: str, remedy: str = "") -> PolicyError:
        path, line = self.lines.get(key, (self.path, 1))
        return PolicyError(message, path=path, line=line, key=key, remedy=remedy)


def read_task_folder(root: Path, name: str) -> tuple[FolderTask, ...]:
    """The task `name` of the folder `root`, or the tasks of the group of that name, each once and in its order.

    Raises:
        PolicyError: none is called so, or what it is made of cannot be read as plain data; names file and line.
    """
    found: dict[str, _Read] = {}
    for path in _yaml_files(root):
        read = _read(root, path, 0)
        own = read.values.get("group", read.values.get("task"))
        if own is None:
            continue  # a template that others include
        if not isinstance(own, str):
            raise read.wrong("task", "expected a name")
        if own in found:
            raise read.wrong("group" if "group" in read.values else "task", f"{own} is in {found[own].path} too")
        found[own] = read
    if name not in found:
        known = ", ".join(sorted(found)[:10]) or "no task"
        raise PolicyError(f"holds no task {name}, only {known}", path=root, remedy="name one of them as the task")
    tasks: dict[str, FolderTask] = {}
    _collect(root, found, name, tasks, ())
    return tuple(tasks.values())


def _collect(
    root: Path, found: Mapping[str, _Read], name: str, tasks: dict[str, FolderTask], groups: tuple[_Read, ...]
) -> None:
    read = found[name]
    if "group" not in read.values:
        tasks.setdefault(name, _task(root, read, tuple(file for group in groups for file in group.files)))
        return
    if strangers := sorted(str(key) for key in read.values.keys() - _GROUP_KEYS):
        raise read.wrong(strangers[0], "is not supported in a group")
    if read in groups or len(groups) >= _MAX_DEPTH:
        raise read.wrong("task", "a group that holds itself, or too many groups within each other")
    members = read.values.get("task")
    for member in members if isinstance(members, list) and members else [None]:
        if not isinstance(member, str) or member not in found:
            raise read.wrong("task", f"expected names of tasks in {root.name}, got {str(member)[:100]}")
        _collect(root, found, member, tasks, (*groups, read))


def _task(root: Path, read: _Read, groups: tuple[Path, ...]) -> FolderTask:
    config = dict(read.values)
    if strangers := sorted(str(key) for key in config.keys() - TASK_KEYS):
        raise read.wrong(strangers[0], "is not supported in a local task: it can load code")
    if config.get("dataset_path") != "json":
        raise read.wrong("dataset_path", f"expected json, a local file, got {str(config.get('dataset_path'))[:100]}")
    settings = config.get("dataset_kwargs")
    named = settings.get("data_files") if isinstance(settings, dict) else None
    by_split = named if isinstance(named, dict) else {"train": named}  # how datasets itself reads a bare list
    data: dict[str, tuple[Path, ...]] = {}
    for split, names in by_split.items():
        listed = names if isinstance(names, list) else [names]
        if not listed or not all(isinstance(each, str) and "://" not in each for each in listed):
            raise read.wrong("dataset_kwargs", "expected data_files, local files in the folder")
        # lm-eval reads them from the working directory; here they belong to the file that names them.
        folder = read.lines["dataset_kwargs"][0].parent
        data[str(split)] = tuple(_plain(root, folder / str(each), read, "dataset_kwargs") for each in listed)
    absolute = {split: [str(file) for file in files] for split, files in data.items()}
    config["dataset_kwargs"] = {**settings, "data_files": absolute} if isinstance(settings, dict) else {}
    every = tuple(file for files in data.values() for file in files)
    tested = data.get(str(config.get("test_split")), every)
    return FolderTask(config, tuple(dict.fromkeys((*groups, *read.files, *every))), tested)


def _yaml_files(root: Path) -> list[Path]:
    found = [
        Path(folder) / name
        for folder, _, names in os.walk(root, followlinks=False)
        for name in names
        if name.endswith((".yaml", ".yml"))
    ]
    if len(found) > _MAX_FILES:
        raise PolicyError(f"holds more than {_MAX_FILES} YAML files", path=root)
    return sorted(found)


def _read(root: Path, path: Path, depth: int) -> _Read:
    """One file under what it includes: its own keys win."""
    nothing = _Read(path, {}, {}, (path,))
    text = _text(_plain(root, path, nothing, ""), nothing)
    values, lines = _values(text, path)
    own = _Read(path, values, {key: (path, line) for key, line in lines.items()}, (path,))
    included = values.pop("include", None)
    if included is None:
        return own
    if not isinstance(included, str) or depth >= _MAX_DEPTH:
        raise own.wrong("include", f"expected the name of one file, at most {_MAX_DEPTH} within each other")
    base = _read(root, _plain(root, path.parent / included, own, "include"), depth + 1)
    return _Read(path, {**base.values, **values}, {**base.lines, **own.lines}, (path, *base.files))


def _text(path: Path, read: _Read) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise read.wrong("", f"larger than {_MAX_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise read.wrong("", f"cannot be read: {error}") from error


def _values(text: str, path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Keys and values, and the line of each key."""
    try:
        _require_flat(text, path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        message = f"{problem}; only plain data is accepted, a !function is code"
        raise PolicyError(message, path=path, line=mark.line + 1 if mark else 1) from error
    except (RecursionError, ValueError) as error:
        raise PolicyError(f"cannot be read as YAML: {type(error).__name__}", path=path, line=1) from error
    if not isinstance(node, yaml.MappingNode) or not isinstance(values, dict):
        raise PolicyError("expected keys and values", path=path, line=1)
    return values, {str(key.value): key.start_mark.line + 1 for key, _ in node.value}


def _require_flat(text: str, path: Path) -> None:
    """No alias, and nothing nested so deep that composing it would take minutes: events are read one at a time."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise PolicyError("aliases are not supported", path=path, line=1)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_NESTED:
            mark = event.start_mark
            raise PolicyError("is nested too deeply", path=path, line=mark.line + 1 if mark else 1)


def _plain(root: Path, path: Path, read: _Read, key: str) -> Path:
    """`path`, where it is a plain file in `root`, reached through plain folders."""
    normal = Path(os.path.normpath(path))
    inside = normal.is_relative_to(root)
    if not inside or any(part.is_symlink() for part in (normal, *normal.parents) if part.is_relative_to(root)):
        raise read.wrong(key, f"{path.name} lies outside of {root.name}, or behind a symbolic link")
    try:
        if not normal.is_file():
            raise read.wrong(key, f"{normal} does not exist, or is no file")
        if normal.stat().st_size > _MAX_DATA_BYTES:
            raise read.wrong(key, f"{normal.name} is larger than {_MAX_DATA_BYTES} bytes")
    except (OSError, ValueError) as error:
        raise read.wrong(key, f"{path.name!r} cannot be read") from error
    return normal
