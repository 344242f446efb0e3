"""Two policies, and which of them lets more through: for a terminal, and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from quantguard.core.verdict import ExitCode
from quantguard.policy.compare import Change, Direction
from quantguard.policy.compare_inputs import differences
from quantguard.policy.load import LoadedPolicy

SCHEMA: Final = "quantguard.policy-diff/1"
_WORDS_ONLY: Final = frozenset({"name", "description"})  # which no gate decides by
_NOTHING: Final = "equal"


@dataclass(frozen=True, slots=True)
class Diff:
    before: LoadedPolicy
    after: LoadedPolicy
    changes: tuple[Change, ...]  # in the order of the schema; then in files that both name

    def count(self, direction: Direction) -> int:
        return sum(change.direction is direction for change in self.telling)

    @property
    def telling(self) -> tuple[Change, ...]:
        """The changes that can make a difference to a model."""
        return tuple(change for change in self.changes if change.rule not in _WORDS_ONLY)

    @property
    def answer(self) -> str:
        """`looser` where anything is; otherwise `different`, `stricter`, or `equal`."""
        order = (Direction.LOOSER, Direction.DIFFERENT, Direction.STRICTER)
        return next((direction.value for direction in order if self.count(direction)), _NOTHING)

    @property
    def exit_code(self) -> ExitCode:
        """0 where the second policy promotes nothing that the first does not."""
        safe = self.answer in (_NOTHING, Direction.STRICTER.value)
        return ExitCode.PASSED if safe else ExitCode.BLOCKED


def diff(before: LoadedPolicy, after: LoadedPolicy) -> Diff:
    """What the second policy says otherwise, rule by rule.

    Raises:
        QuantGuardError: a file has gone since its policy was loaded.
    """
    return Diff(before, after, differences(before, after))


def diff_lines(found: Diff) -> Iterator[str]:
    """One line for each change, and one that sums up."""
    rows = [(change.direction.value, change.rule, change.before, change.after) for change in found.telling]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    for direction, rule, before, after in rows:
        yield f"{direction:<{widths[0]}}  {rule:<{widths[1]}}  {before} -> {after}"
    counts = ", ".join(f"{found.count(direction)} {direction.value}" for direction in Direction)
    names = f"{found.before.policy.name} -> {found.after.policy.name}"
    yield f"{names}: {found.answer} ({counts})"


def diff_json(found: Diff) -> str:
    """The same as JSON; `file`, `line` and `column` are where the second policy says it, or would."""
    document = {
        "schema": SCHEMA,
        "before": _named(found.before),
        "after": _named(found.after),
        "answer": found.answer,
        "changes": [_plain(found.after, change) for change in found.changes],
    }
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def _named(policy: LoadedPolicy) -> dict[str, str]:
    inputs = {"inputs_digest": policy.inputs_digest}
    return {"name": policy.policy.name, "path": policy.path.as_posix(), "digest": policy.digest, **inputs}


def _plain(policy: LoadedPolicy, change: Change) -> dict[str, Any]:
    place = policy.written.place(change.location)
    said = {"rule": change.rule, "direction": change.direction.value, "before": change.before, "after": change.after}
    return {**said, "file": place.file, "line": place.line, "column": place.column}
