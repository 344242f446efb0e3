"""What the host must know of a policy before any container runs: its files, and whether it needs a GPU.

The policy is checked in full by the fetch container, before it asks the registry for anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from quantguard.core.errors import UsageError
from quantguard.policy.document import Document, parse_document, read_bounded
from quantguard.policy.tasks import read_task


@dataclass(frozen=True, slots=True)
class Needs:
    files: tuple[Path, ...]  # absolute, each once: the policy and what it names
    gpu: bool


def read_needs(policy: Path, workspace: Path) -> Needs:
    """What the policy at `policy` (relative to `workspace`) needs of the runner.

    Raises:
        PolicyError: it cannot be read.
        UsageError: it, or a file that it names, lies outside the workspace or is reached through a symbolic link.
    """
    document = parse_document(workspace / policy, read_bounded(workspace / policy))
    gpu = document.node("requires", "gpu")
    files = dict.fromkeys(Path(os.path.normpath(file)) for file in (document.path, *_named(document)))
    for file in files:
        if not file.is_relative_to(workspace) or file.resolve() != file:
            remedy = "keep the policy and what it names in the repository, as plain files"
            raise UsageError("lies outside the workspace, or behind a symbolic link", path=file, remedy=remedy)
    return Needs(tuple(files), isinstance(gpu, yaml.ScalarNode) and _true(gpu.value))


def _true(text: str) -> bool:
    # Whatever is not plainly a no needs one: the schema, which is stricter, decides later.
    return text.lower() not in ("false", "no", "off")


def _named(document: Document) -> Iterator[Path]:
    """The files that exist of those that are named: what is missing is told by the fetch container, with its line."""
    attacks = document.node("attack_success")
    scenarios = [key.value for key, _ in attacks.value] if isinstance(attacks, yaml.MappingNode) else []
    places = [("harden", "calibration", "prompts"), ("counterfactual", "prompts"), ("perplexity", "prompts")]
    places += [("triggers", "prompts"), ("triggers", "list")]
    places += [("attack_success", name, "probes") for name in scenarios]
    for node in (document.node(*place) for place in places):
        if isinstance(node, yaml.ScalarNode) and (file := document.path.parent / node.value).is_file():
            yield file
    benchmarks = document.node("benchmarks")
    for index in range(len(benchmarks.value) if isinstance(benchmarks, yaml.SequenceNode) else 0):
        path, task, kind = (document.node("benchmarks", index, key) for key in ("path", "task", "kind"))
        if isinstance(path, yaml.ScalarNode) and isinstance(task, yaml.ScalarNode):
            file = document.path.parent / path.value
            if isinstance(kind, yaml.ScalarNode) and kind.value == "code" and file.is_file():
                yield file  # a JSONL of problems, which names no other
            elif file.exists():
                yield from read_task(file, task.value).files
