"""The built-in questions: is a model still useful, where nobody has a task of their own?

A policy says `task: builtin` for all suites, or `task: builtin/NAME` for one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from quantguard.core.suites import BUILTIN

TASKS_FOLDER: Final = Path(__file__).parent / "tasks"
_ASKED: Final = "Question: {{question}}\nAnswer:"
# Name -> version and how a row is asked; the prompt is part of the measurement, so another one is another version.
_SUITES: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "everyday": (1, _ASKED),
        "completion": (1, "{{question}}"),
        "arithmetic": (1, _ASKED),
        "reading": (1, "{{question}}\nAnswer:"),
        "python": (1, _ASKED),
    }
)
TASK_NAMES: Final = (BUILTIN, *(f"{BUILTIN}/{name}" for name in _SUITES))


@dataclass(frozen=True, slots=True)
class TaskSuite:
    """Questions of one kind with four choices each, one `{"question", "choices", "answer"}` a line."""

    name: str  # e.g. everyday
    version: int
    path: Path
    asked: str  # jinja2 template of the prompt

    @property
    def suite(self) -> str:
        """`builtin/NAME/VERSION`."""
        return f"{BUILTIN}/{self.name}/{self.version}"

    @property
    def digest(self) -> str:
        """`sha256:HEX` over the file and over how it is asked."""
        return "sha256:" + hashlib.sha256(self.path.read_bytes() + self.asked.encode()).hexdigest()

    @property
    def questions(self) -> int:
        return self.path.read_bytes().count(b"\n")

    def config(self) -> dict[str, Any]:
        """As lm-eval's task format has it."""
        return {
            "task": f"{BUILTIN}_{self.name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": [str(self.path)]}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": self.asked,
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }


def builtin_task(task: str) -> tuple[TaskSuite, ...]:
    """The suites that `task` names, in a fixed order; none where it names none."""
    names = tuple(name for name in _SUITES if task in (BUILTIN, f"{BUILTIN}/{name}"))
    return tuple(TaskSuite(name, _SUITES[name][0], TASKS_FOLDER / f"{name}.jsonl", _SUITES[name][1]) for name in names)
