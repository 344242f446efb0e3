"""What the host must know of a policy before any container runs: its files, and whether it needs a GPU.

The policy is checked in full by the fetch container, before it asks the registry for anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantguard.core.errors import UsageError
from quantguard.policy.extends import read_written
from quantguard.policy.naming import named_files
from quantguard.policy.tasks import read_task


@dataclass(frozen=True, slots=True)
class Needs:
    files: tuple[Path, ...]  # absolute, each once: the policy, what it extends, what they name, and the waivers
    gpu: bool


def read_needs(policy: Path, workspace: Path, waivers: Path | None = None) -> Needs:
    """What the policy at `policy` needs of the runner; like `waivers`, it is relative to `workspace`.

    Raises:
        PolicyError: it cannot be read.
        UsageError: it, a file that it names, or the waivers lie outside the workspace or behind a symbolic link.
    """
    written = read_written(workspace / policy)
    values = written.values()
    own = [layer.document.path for layer in written.layers if not layer.preset]  # presets are in the image
    allowed = () if waivers is None else (workspace / waivers,)
    if not all(file.is_file() for file in allowed):
        raise UsageError("these waivers are no file", path=waivers, remedy="check the input waivers, or leave it out")
    named = (*own, *_named(values, written.path.parent), *allowed)
    files = dict.fromkeys(Path(os.path.normpath(file)) for file in named)
    for file in files:
        if not file.is_relative_to(workspace) or file.resolve() != file:
            remedy = "keep the policy, what it names and the waivers in the repository, as plain files"
            raise UsageError("lies outside the workspace, or behind a symbolic link", path=file, remedy=remedy)
    return Needs(tuple(files), _needs_gpu(values))


def _needs_gpu(values: dict[str, Any]) -> bool:
    # Whatever is not plainly a no needs one: the schema, which is stricter, decides later.
    requires = values.get("requires")
    return isinstance(requires, dict) and requires.get("gpu", False) is not False


def _named(values: dict[str, Any], folder: Path) -> Iterator[Path]:
    """The files that exist of those that are named: what is missing is told by the fetch container, with its line."""
    for location, name in named_files(values):
        file = folder / name
        if location[0] != "benchmarks":
            if file.is_file():
                yield file
            continue
        benchmark = values["benchmarks"][location[1]]
        task, kind = benchmark.get("task"), benchmark.get("kind")
        if kind == "code" and file.is_file():
            yield file  # a JSONL of problems, which names no other
        elif kind != "code" and file.exists() and isinstance(task, str):
            yield from read_task(file, task).files
