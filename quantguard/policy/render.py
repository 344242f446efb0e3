"""Plain values as a policy file: the same values, the same text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml

from quantguard.policy.document import Location

_WIDE: Final = 1_000_000_000  # no value is folded: one key, one line
_INDENT: Final = "  "

Note = Callable[[Location], str]


def _silent(_: Location) -> str:
    return ""


def render(values: dict[str, Any], note: Note = _silent) -> str:
    """YAML of `values`, which hold no null; `note` of a key is written beside it as a comment, where there is one."""
    return "\n".join(_section(values, (), note)) + "\n"


def _section(values: dict[str, Any], location: Location, note: Note) -> Iterator[str]:
    indent = _INDENT * len(location)
    for key, value in values.items():
        here = (*location, key)
        begin, comment = f"{indent}{_flow(key)}:", _comment(note(here))
        if isinstance(value, dict) and value:
            yield begin
            yield from _section(value, here, note)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield begin + comment
            yield from (f"{indent}{_INDENT}- {_flow(item)}" for item in value)
        else:
            yield f"{begin} {_flow(value)}{comment}"


def _comment(text: str) -> str:
    return f"  # {' '.join(text.split())}" if text else ""


class _Dumper(yaml.SafeDumper):
    """Quotes and escapes what cannot be seen, so that no value spans two lines."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)


def _flow(value: Any) -> str:
    """A value on one line."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=_WIDE, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")
