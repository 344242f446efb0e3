"""A YAML file as plain values that remember their lines. Bounded, without aliases, tags or duplicate keys.

The file is first read as a flat stream of events, which costs no recursion and no expansion, and only then composed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quantguard.core.errors import PolicyError
from quantguard.core.remark import Place

MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 16  # a policy is five deep
_MAX_NODES = 20_000
_PLAIN_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\Z")
_PLAIN_FLOAT = re.compile(r"[-+]?([0-9]{1,20}\.?[0-9]{0,30}|\.[0-9]{1,30})([eE][-+]?[0-9]{1,3})?\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")  # YAML's escapes can write what no encoding can store
_TRUE = frozenset({"true", "yes", "on"})
_FALSE = frozenset({"false", "no", "off"})

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its bytes and its tree of nodes."""

    path: Path
    data: bytes
    root: yaml.MappingNode

    def values(self) -> dict[str, Any]:
        """The file as dict, list, str, int, float and bool, never None.

        Raises:
            PolicyError: a duplicate key, a key without a value, a value of another YAML type.
        """
        return _mapping(self.path, self.root, ())

    def node(self, *location: str | int) -> yaml.Node | None:
        """What is written at `location`, or None."""
        node: yaml.Node = self.root
        for part in location:
            step = _step(node, part)
            if step is None:
                return None
            node = step[1]
        return node

    def spot(self, location: Sequence[str | int]) -> tuple[int, int]:
        """Line and column, from 1, of the key or entry at `location`, or of what holds it where it is absent."""
        node: yaml.Node = self.root
        mark = node.start_mark
        for part in location:
            step = _step(node, part)
            if step is None:
                break
            mark, node = step[0].start_mark, step[1]
        return mark.line + 1, mark.column + 1

    def error(self, location: Sequence[str | int], message: str, remedy: str = "") -> PolicyError:
        """What is wrong at `location`, with its place."""
        line, column = self.spot(location)
        return PolicyError(message, path=self.path, line=line, column=column, key=dotted(location), remedy=remedy)

    def place(self, location: Sequence[str | int]) -> Place:
        """The value at `location` where it is one word or number, otherwise its key.

        Where it is absent, the key of the nearest section that is there; the first line where there is none.
        """
        node: yaml.Node = self.root
        shown: yaml.Node | None = None
        for part in location:
            step = _step(node, part)
            if step is None:
                break
            shown, node = step
        if shown is not None and isinstance(node, yaml.ScalarNode):
            shown = node
        file = self.path.as_posix()
        if shown is None:
            first = self.data.decode("utf-8").splitlines()[0]
            return Place(file, 1, 1, 1, len(first) + 1)
        start, end = shown.start_mark, shown.end_mark
        return Place(file, start.line + 1, start.column + 1, end.line + 1, end.column + 1)


def dotted(location: Sequence[str | int]) -> str:
    """`("benchmarks", 0, "task")` as `benchmarks[0].task`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def read_bounded(path: Path) -> bytes:
    """The bytes of a small file.

    Raises:
        PolicyError: it cannot be read, or is larger than 1 MB.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror or error}", path=path, remedy="check the path") from error
    if len(data) > MAX_BYTES:
        raise PolicyError(f"is larger than {MAX_BYTES} bytes", path=path, remedy="expected a short YAML file")
    return data


def parse_document(path: Path, data: bytes) -> Document:
    """Parse YAML text whose top level is a mapping.

    Raises:
        PolicyError: not UTF-8, not YAML, an alias, a tag of its own, absurd depth or size.
    """
    try:
        text = data.decode("utf-8")
        _check_events(path, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = len(data[: error.start].rpartition(b"\n")[2].decode("utf-8")) + 1
        raise PolicyError("is not UTF-8 text", path=path, line=line, column=column) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "malformed"
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        raise PolicyError(f"is not YAML: {problem}", path=path, line=line, column=column) from error
    if not isinstance(root, yaml.MappingNode):
        raise PolicyError("expected keys and values at the top level", path=path, line=1)
    return Document(path, data, root)


def _check_events(path: Path, text: str) -> None:
    depth = nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        if isinstance(event, yaml.AliasEvent):
            remedy = "write the value out"
            raise PolicyError("YAML aliases are refused", path=path, line=line, column=column, remedy=remedy)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > _MAX_DEPTH or nodes > _MAX_NODES:
            raise PolicyError("is nested too deeply or has too many entries", path=path, line=line, column=column)
        tag = getattr(event, "tag", None)
        if tag is not None and not str(tag).startswith("tag:yaml.org,2002:"):
            # lm-eval's `!function` imports the Python file that it names; no other tag has a meaning here.
            message = f"the YAML tag {tag} is refused"
            raise PolicyError(message, path=path, line=line, column=column, remedy="use plain values")


def _mapping(path: Path, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, mark = key_node.value, key_node.start_mark
        if not _is_word(key_node):
            raise _wrong(path, mark, location, "expected a plain word as the key")
        here = (*location, key)
        if key in values:
            raise _wrong(path, mark, here, "is given twice", "keep one of them")
        values[key] = _value(path, value_node, here, mark)
    return values


def _is_word(node: yaml.Node) -> bool:
    is_text = isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str"
    return is_text and not _SURROGATE.search(node.value)


def _wrong(path: Path, mark: yaml.Mark, location: Location, message: str, remedy: str = "") -> PolicyError:
    line, column = mark.line + 1, mark.column + 1
    return PolicyError(message, path=path, line=line, column=column, key=dotted(location), remedy=remedy)


def _value(path: Path, node: yaml.Node, location: Location, mark: yaml.Mark) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(path, node, location)
    if isinstance(node, yaml.SequenceNode):
        return [_value(path, item, (*location, i), item.start_mark) for i, item in enumerate(node.value)]
    try:
        return _scalar(node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value))
    except ValueError as error:
        raise _wrong(path, mark, location, str(error)) from error


def _scalar(kind: str, text: str) -> str | int | float | bool:
    """Raises ValueError with what was expected."""
    lower = text.lower()
    if kind == "str":
        if _SURROGATE.search(text):
            raise ValueError("expected text, got half of a character")
        return text
    if kind == "null":
        raise ValueError("has no value: give it one, or remove the key")
    if kind == "bool" and lower in _TRUE | _FALSE:
        return lower in _TRUE
    if kind == "float" and lower.lstrip("+-") in {".inf", ".nan"}:
        return math.nan  # the schema refuses it, naming the key
    # YAML 1.1 reads 010 as eight and 1:30 as ninety: nobody means that in a limit.
    if kind == "int" and _PLAIN_INT.match(text):
        return int(text)
    if kind == "float" and _PLAIN_FLOAT.match(text):
        return float(text)
    expected = "a plain decimal number" if kind in {"int", "float"} else "text (put quotes around it) or a number"
    raise ValueError(f"expected {expected}, got {text[:40]!r}")


def _step(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """One step into `node`: the word that a reader would look at, and what is there."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        begins = item.value[0][0] if isinstance(item, yaml.MappingNode) and item.value else item
        return begins, item
    return None
