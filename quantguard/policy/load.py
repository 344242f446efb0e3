"""Policy files in: parsed, checked together with the files that they name, and digested."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from quantguard.core.bundled import named_file
from quantguard.core.errors import PolicyError
from quantguard.core.remark import Place
from quantguard.evidence.records import digest_bytes, digest_of
from quantguard.policy.anchors import rule_places
from quantguard.policy.document import parse_document
from quantguard.policy.extends import Written, read_written
from quantguard.policy.inputs import InputFile, read_inputs
from quantguard.policy.problems import translate
from quantguard.policy.render import render
from quantguard.policy.schema import Policy

__all__ = ["InputFile", "LoadedPolicy", "load_policy", "parse_policy", "policy_problems"]


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    policy: Policy
    path: Path
    # The whole policy as one file: its own bytes, or, where it extends another, what both say together (YAML).
    text: bytes
    digest: str  # sha256:HEX of `text`: what a preset says in another version of QuantGuard is another policy
    inputs_digest: str  # sha256:HEX of the contents of every file it names: other probes, another meaning
    inputs: tuple[InputFile, ...]
    anchors: tuple[tuple[str, Place], ...]  # (rule as a reason names it, where a file says it)
    written: Written = field(compare=False, repr=False)  # its files, for whoever asks which of them says what

    def resolve(self, name: str) -> Path:
        """The file that the policy calls `name`."""
        return named_file(name, self.path.parent)


def load_policy(path: Path) -> LoadedPolicy:
    """Read a policy, what it extends, and check every file that it names.

    Raises:
        PolicyError: the first problem in the file, with line, column, key and what was expected.
    """
    problems: list[PolicyError] = []
    loaded = _load(path, problems)
    if problems:
        raise problems[0]
    if loaded is None:
        raise PolicyError("cannot be read as a policy", path=path)
    return loaded


def policy_problems(path: Path) -> tuple[PolicyError, ...]:
    """Everything wrong with a policy file, in the order of the file; empty where it is valid."""
    problems: list[PolicyError] = []
    _load(path, problems)
    return tuple(problems)


def parse_policy(path: Path, text: bytes) -> Policy:
    """The policy that `text` (of `LoadedPolicy`) is. No file that it names is looked at; `path` is for the errors.

    Raises:
        PolicyError: it is none, or extends another.
    """
    document = parse_document(path, text)
    try:
        return Policy.model_validate_json(json.dumps(document.values()))
    except ValidationError as error:
        raise translate(document, error)[0] from error


def _load(path: Path, problems: list[PolicyError]) -> LoadedPolicy | None:
    try:
        written = read_written(path)
        policy = Policy.model_validate_json(json.dumps(written.values()))
    except PolicyError as error:
        problems.append(error)
        return None
    except ValidationError as error:
        problems.extend(sorted(translate(written, error), key=written.order))
        return None
    inputs, wrong = read_inputs(policy, written)
    problems.extend(wrong)
    extends = len(written.layers) > 1
    text = render(written.values()).encode() if extends else written.own.document.data
    digest = digest_bytes(text)  # of what was parsed, not of what is there by now
    # Keys and contents, not paths: a policy means the same wherever it is checked out.
    inputs_digest = digest_of([[file.key, file.digest] for file in inputs])
    return LoadedPolicy(policy, path, text, digest, inputs_digest, inputs, rule_places(policy, written), written)
