"""The keys of the schema, walked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

WHOLE = frozenset({"waivers.approvals"})  # a list of sections that is compared as one value


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key that holds a value, `[]` for the entries of a list of sections."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        below, many = section_in(field.annotation)
        if below is None or key in WHOLE:
            yield key
        else:
            yield from leaves(below, f"{key}[]." if many else f"{key}.")


def optional_sections(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        below, many = section_in(field.annotation)
        if below is not None and f"{prefix}{name}" not in WHOLE:
            key = f"{prefix}{field.alias or name}{'[]' if many else ''}"
            if many or type(None) in get_args(field.annotation):
                yield key
            yield from optional_sections(below, f"{key}.")


def section_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for part in get_args(annotation):
        below, many = section_in(part)
        if below is not None:
            return below, many or getattr(annotation, "__origin__", None) is tuple
    return None, False
