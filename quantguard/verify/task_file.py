"""Local lm-eval tasks: one YAML file and the data files it names, a folder of such, or the built-in questions.

Data only, nothing in them is executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from quantguard.core.builtin_tasks import TaskSuite
from quantguard.core.errors import PolicyError
from quantguard.core.measurement import Unmeasured
from quantguard.core.task_folder import TASK_KEYS, read_task_folder
from quantguard.evidence.records import digest_file, digest_of

BINARY_METRICS: Final = ("acc", "exact_match")  # right or wrong for each question
_MAX_BYTES: Final = 1024 * 1024
_MAX_DATA_BYTES: Final = 1024 * 1024 * 1024
_LOCAL_FORMATS: Final = frozenset({"json", "csv", "parquet", "text"})  # datasets' readers of local files
_DATASET_KEYS: Final = frozenset({"data_files", "field", "split", "delimiter", "sep", "column_names"})


@dataclass(frozen=True, slots=True)
class TaskFile:
    """Tasks as lm-eval's ConfigurableTask takes them, with absolute data files and one binary metric each."""

    configs: tuple[dict[str, Any], ...]  # not empty; more than one of a group in a folder, and of the built-in suites
    digest: str  # sha256 over the YAML and data files


class _Refused(Exception):  # noqa: N818  it never leaves this file: it carries the reason of an Unmeasured
    pass


def read_task(path: Path, name: str, scratch: Path) -> TaskFile | Unmeasured:
    """Read a task file, or the task or group `name` of a task folder.

    `scratch` is where `datasets` may keep its converted copy of the data. Unmeasured where it cannot be read, asks for
    code (`!function`, `process_docs` ...), names data that is not a local file, or has no metric that is right or wrong
    for each question. A single file may include no other.
    """
    try:
        return _folder(path, name, scratch) if path.is_dir() else _file(path, scratch)
    except PolicyError as error:
        return Unmeasured(str(error))
    except _Refused as refused:
        return Unmeasured(f"{path}: {refused}")
    except (OSError, ValueError, RecursionError) as error:
        return Unmeasured(f"{path}: cannot be read: {error}")


def builtin_tasks(suites: Sequence[TaskSuite], scratch: Path) -> TaskFile:
    """The built-in questions as tasks."""
    configs = tuple(_completed(suite.config(), scratch) for suite in suites)
    return TaskFile(configs, digest_of([[suite.suite, suite.digest] for suite in suites]))


def _file(path: Path, scratch: Path) -> TaskFile:
    config = _plain_task(path)
    files = _absolute_data_files(config, path.parent)
    config = _completed(config, scratch)
    return TaskFile((config,), digest_of([digest_file(path), *(digest_file(file) for file in files)]))


def _folder(root: Path, name: str, scratch: Path) -> TaskFile:
    tasks = read_task_folder(root, name)
    for task in tasks:
        if strangers := sorted(str(key) for key in task.config["dataset_kwargs"].keys() - _DATASET_KEYS):
            raise _Refused(f"dataset_kwargs.{strangers[0]} is not supported in a local task")
    configs = tuple(_completed(dict(task.config), scratch) for task in tasks)
    return TaskFile(configs, digest_of([[digest_file(file) for file in task.files] for task in tasks]))


def _completed(config: dict[str, Any], scratch: Path) -> dict[str, Any]:
    config["metric_list"] = [_one_metric(config)]
    config["num_fewshot"] = config.get("num_fewshot") or 0
    config["dataset_kwargs"]["cache_dir"] = str(scratch)
    return config


def _plain_task(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_BYTES:
        raise _Refused(f"larger than {_MAX_BYTES} bytes")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "not YAML"
        raise _Refused(f"{problem}; only plain data is accepted, a !function is code") from error
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        raise _Refused("this is no lm-eval task: it needs the key task")
    if strangers := sorted(str(key) for key in config.keys() - TASK_KEYS):
        raise _Refused(f"the key {strangers[0]} is not supported in a local task: it can load code")
    return config


def _absolute_data_files(config: dict[str, Any], folder: Path) -> list[Path]:
    """Make the data files of `config` absolute in place (lm-eval takes them from the working directory)."""
    settings = config.get("dataset_kwargs")
    named = settings.get("data_files") if isinstance(settings, dict) else None
    if config.get("dataset_path") not in _LOCAL_FORMATS or not isinstance(settings, dict) or named is None:
        formats = ", ".join(sorted(_LOCAL_FORMATS))
        raise _Refused(f"dataset_path must be one of {formats}, with dataset_kwargs.data_files")
    if strangers := sorted(str(key) for key in settings.keys() - _DATASET_KEYS):
        raise _Refused(f"dataset_kwargs.{strangers[0]} is not supported in a local task")
    by_split = named if isinstance(named, dict) else {"train": named}  # how datasets itself reads a bare list
    absolute = {str(split): _local_files(names, folder) for split, names in by_split.items()}
    settings["data_files"] = {split: [str(file) for file in files] for split, files in absolute.items()}
    return [file for files in absolute.values() for file in files]


def _local_files(names: object, folder: Path) -> list[Path]:
    listed = names if isinstance(names, list) else [names]
    plain = [name for name in listed if isinstance(name, str) and "://" not in name]
    if not listed or len(plain) < len(listed):
        raise _Refused("data_files must name local files")
    files = [(folder / name).resolve() for name in plain]
    for file in files:
        if not file.is_file():
            raise _Refused(f"the data file {file} does not exist")
        if file.stat().st_size > _MAX_DATA_BYTES:
            raise _Refused(f"the data file {file} is larger than {_MAX_DATA_BYTES} bytes")
    return files


def _one_metric(config: dict[str, Any]) -> dict[str, Any]:
    """The first binary metric that the task lists, or the default of its output type."""
    listed = config.get("metric_list")
    if listed is None:
        default = "acc" if config.get("output_type") == "multiple_choice" else "exact_match"
        listed = [{"metric": default}]
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and entry.get("metric") in BINARY_METRICS and not entry.get("hf_evaluate"):
            return {**entry, "aggregation": "mean", "higher_is_better": True}
    raise _Refused(f"metric_list has none of {', '.join(BINARY_METRICS)}: right or wrong for each question")
