"""A policy as text for a reader: what its file says against what it extends, and all that is in force."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from quantguard.policy.anchors import rule_locations
from quantguard.policy.document import Location
from quantguard.policy.extends import Written, step_into
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.render import render


def own_text(loaded: LoadedPolicy) -> str:
    """What the file itself says (YAML), with what it replaces beside it."""
    written = loaded.written
    below = Written(written.layers[1:]) if len(written.layers) > 1 else None

    def note(location: Location) -> str:
        replaced = _at(below.values(), location) if below is not None and location[0] not in _HEAD else None
        if below is None or replaced is None or isinstance(replaced, dict):
            return ""
        said = render({"x": replaced}).removeprefix("x:").strip() if _is_plain(replaced) else "another list"
        same = replaced == _at(written.own.values, location)
        said = "the same" if same else said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
        return f"{below.owner(location).called} says {said}"

    return render(written.own.document.values(), note)


def effective_text(loaded: LoadedPolicy) -> str:
    """Every key that is in force (YAML, a policy by itself beside the file), with where each comes from."""
    written = loaded.written
    said = written.values()

    def note(location: Location) -> str:
        if _at(said, location) is None:
            return "default"
        layer = written.owner(location)
        line = layer.document.spot(location)[0]
        return f"{'here' if layer is written.own else layer.called}, line {line}"

    return render(loaded.policy.model_dump(mode="json", by_alias=True, exclude_none=True), note)


def rule_lines(loaded: LoadedPolicy, pattern: str) -> tuple[str, ...]:
    """Where the policy says each rule that `pattern` (with stars) means, and its value; one line each."""
    values = loaded.policy.model_dump(mode="json", by_alias=True, exclude_none=True)
    said = loaded.written.values()
    lines = []
    for rule, location in rule_locations(loaded.policy):
        if fnmatchcase(rule, pattern):
            place = loaded.written.place(location)
            layer = loaded.written.owner(location)
            origin = f" ({layer.preset})" if layer.preset else ""
            origin = " (default)" if _at(said, location) is None else origin
            value = render({"x": _at(values, location)}).removeprefix("x:").strip()
            lines.append(f"{place.file}:{place.line}:{place.column}: {rule}: {value}{origin}")
    return tuple(lines)


_SHOWN = 60  # characters of what is replaced
_HEAD = ("schema", "name", "extends")  # which every file says for itself


def _at(values: Any, location: Sequence[str | int]) -> Any:
    for part in location:
        values = step_into(values, part)
    return values


def _is_plain(value: Any) -> bool:
    return not isinstance(value, list) or not any(isinstance(item, dict) for item in value)
