"""What pydantic found wrong, as errors that name file, line, key and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from quantguard.core.errors import PolicyError
from quantguard.policy.document import Document
from quantguard.policy.extends import KEY, Written
from quantguard.policy.json_schema import keys_at
from quantguard.policy.schema import Policy

_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}
_PLAIN = {
    "missing": "is required and absent",
    "too_short": "expected at least one entry",
    "string_too_short": "expected some text, got none",
}


def translate(
    document: Document | Written, error: ValidationError, root: type[BaseModel] = Policy
) -> list[PolicyError]:
    """Every problem of `error`, in the order of the file, whose schema is `root`."""
    found = error.errors(include_url=False)
    misspelt = {_meant(details["loc"], root) for details in found if details["type"] == "extra_forbidden"}
    # A required key that is there, misspelt, is one problem and not two.
    told = [details for details in found if details["type"] != "missing" or tuple(details["loc"]) not in misspelt]
    # Nor is a list of which an entry is wrong too short.
    told = [d for d in told if d["type"] != "too_short" or not any(_within(other, d) for other in found)]
    if (KEY,) in misspelt:  # what it would bring in is not missing
        told = [details for details in told if details["type"] != "missing"]
    return sorted((_problem(document, details, root) for details in told), key=lambda problem: problem.line)


def _within(details: ErrorDetails, other: ErrorDetails) -> bool:
    """Whether the one problem is inside what the other is about."""
    outer = other["loc"]
    return len(details["loc"]) > len(outer) and details["loc"][: len(outer)] == outer


def _meant(location: Sequence[str | int], root: type[BaseModel]) -> tuple[str | int, ...]:
    """The known key nearest to an unknown one."""
    close = difflib.get_close_matches(str(location[-1]), keys_at(location[:-1], root), n=1)
    return (*location[:-1], *close)


def _problem(document: Document | Written, details: ErrorDetails, root: type[BaseModel]) -> PolicyError:
    location: Sequence[str | int] = details["loc"]
    context: dict[str, Any] = details.get("ctx", {})
    if details["type"] == "quantguard":
        location = tuple(str(context["key"]).split("."))
    message, remedy = _explain(location, details, context, root)
    return document.error(location, message, remedy)


def _explain(
    location: Sequence[str | int], details: ErrorDetails, context: dict[str, Any], root: type[BaseModel]
) -> tuple[str, str]:
    """What is wrong, and what to do about it."""
    kind = details["type"]
    if kind == "extra_forbidden":
        return "unknown key", nearest(str(location[-1]), keys_at(location[:-1], root))
    if kind in {"enum", "literal_error"}:
        expected = str(context["expected"])
        words = expected.replace(" or ", ", ").replace("'", "").split(", ")
        close = difflib.get_close_matches(str(details.get("input")), words, n=1)
        return _expected(expected, details), f"did you mean {close[0]}?" if close else ""
    if kind in _TYPES:
        return _expected(_TYPES[kind], details), "write it without quotes" if "number" in _TYPES[kind] else ""
    return _rule_broken(kind, details, context), ""


def _rule_broken(kind: str, details: ErrorDetails, context: dict[str, Any]) -> str:
    """What is wrong with a value of the right type."""
    if kind == "quantguard":
        return str(context["problem"])
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return _expected(f"{words} {context[bound]}", details)
    if kind == "string_pattern_mismatch":
        return _expected(f"text that matches {context['pattern']}", details)
    return details["msg"].removeprefix("Value error, ")


def _expected(what: str, details: ErrorDetails) -> str:
    return f"expected {what}, got {_shown(details.get('input'))}"


def nearest(word: str, known: Sequence[str]) -> str:
    """A remedy for a misspelt word: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    text = str(value)
    text = text if len(text) <= 60 else text[:60] + "..."
    return repr(text) if isinstance(value, str) else text
