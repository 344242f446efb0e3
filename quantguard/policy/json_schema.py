"""The JSON Schema of policies and manifests, and the keys that their sections know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel

from quantguard.policy.extends import KEY, PRESETS
from quantguard.policy.schema import Policy
from quantguard.policy.section import Section

_DEFS: Final = "#/$defs/"
_PRESENCE: Final = frozenset({"required", "minProperties", "not"})  # keywords about what must be there
_EXTENDS: Final = {
    "title": "Extends",
    "description": "A preset, or the path of another policy, relative to this one. What is said here wins over it.",
    "anyOf": [{"enum": list(PRESETS)}, {"type": "string", "pattern": r"^[^/].*(/|\.ya?ml$)"}],
}


def policy_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a policy file. Rules between keys and about other files are checked by `load_policy`.

    What must be there, must be there unless the file extends another.
    """
    whole = json_schema(Policy, "urn:quantguard.policy:1")
    body = {**_without(whole), "required": ["schema", "name"]}
    body["properties"] = {**body["properties"], KEY: _EXTENDS}
    sections = _sections(whole, whole)
    body["$defs"] = {
        name: _without(section) if name in sections else section for name, section in whole["$defs"].items()
    }
    return {**body, "if": {"not": {"required": [KEY]}}, "then": _demands(whole, whole)}


def _without(section: dict[str, Any]) -> dict[str, Any]:
    """A section that need not say everything."""
    return {key: value for key, value in section.items() if key not in _PRESENCE}


def _demands(section: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Only what a section says about what must be there, and what those in it say."""
    below = {
        key: demands
        for key, value in section["properties"].items()
        if (inner := _resolved(value, whole)) is not None and (demands := _demands(inner, whole))
    }
    here = {key: value for key, value in section.items() if key in _PRESENCE}
    return {**here, "properties": below} if below else here


def _sections(section: dict[str, Any], whole: dict[str, Any]) -> set[str]:
    """Names of the sections in a section. Entries of lists are none: a list is never merged with another."""
    found = set()
    for value in section["properties"].values():
        if (inner := _resolved(value, whole)) is not None:
            found |= {str(value["$ref"]).removeprefix(_DEFS), *_sections(inner, whole)}
    return found


def _resolved(value: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any] | None:
    inner: dict[str, Any] = whole["$defs"].get(str(value.get("$ref", "")).removeprefix(_DEFS), {})
    return inner if "properties" in inner else None


def json_schema(root: type[Section], name: str) -> dict[str, Any]:
    """JSON Schema (2020-12), called `name`, of the files whose top level is `root`."""
    body = _without_null(root.model_json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": name, **body}


def schema_text(schema: dict[str, Any]) -> str:
    """A JSON Schema as it is checked in."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=True) + "\n"


def _without_null(node: Any) -> Any:
    """An absent key is absent, never null: what pydantic writes for an optional one would let null through."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _without_null(value) for key, value in node.items() if not (key == "default" and value is None)}
    choices = [choice for choice in plain.pop("anyOf", []) if choice != {"type": "null"}]
    return {**plain, **choices[0]} if len(choices) == 1 else plain


def keys_at(location: Sequence[str | int], root: type[BaseModel] = Policy) -> tuple[str, ...]:
    """The keys that the schema `root` knows for the mapping at `location`; empty where it is no mapping."""
    section = root
    for part in location:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        nested = _section_in(fields[part].annotation) if part in fields else None
        if nested is None:
            return ()
        section = nested
    known = tuple(field.alias or name for name, field in section.model_fields.items())
    return (*known, KEY) if section is Policy else known


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation such as `tuple[Section, ...]` or `Section | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if (found := _section_in(part)) is not None:
            return found
    return None


def policy_schema_text() -> str:
    """The JSON Schema as it is checked in at `policies/policy.schema.json`."""
    return schema_text(policy_schema())
