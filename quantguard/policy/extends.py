"""A policy as it is written: its own file, and what that extends. Nothing here knows what the keys mean.

Sections merge key by key, and the nearer file wins; lists and single values replace. A key cannot be taken out again:
what a policy no longer looks at must not hide in an absence, so such a policy is written out.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from quantguard.core.bundled import bundled_folder
from quantguard.core.errors import PolicyError
from quantguard.core.remark import Place
from quantguard.policy.document import Document, dotted, parse_document, read_bounded
from quantguard.policy.naming import rebased

KEY: Final = "extends"
PRESETS: Final = ("strict", "standard", "permissive")
MAX_FILES: Final = 5  # of one policy
_SUFFIXES: Final = (".yaml", ".yml")
_MAX_PATH: Final = 1024  # characters
_OWN: Final = ("schema", "name")  # that every file says for itself


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a policy."""

    document: Document
    values: dict[str, Any]  # without KEY; files are named as the first file of the policy would name them
    preset: str  # which one it is; empty of a user's file

    @property
    def called(self) -> str:
        """As a reader knows it."""
        return self.preset or self.document.path.as_posix()


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a policy, its own first, each extending the next."""

    layers: tuple[Layer, ...]

    @property
    def own(self) -> Layer:
        return self.layers[0]

    @property
    def path(self) -> Path:
        return self.own.document.path

    def values(self) -> dict[str, Any]:
        """What all files say together."""
        merged: dict[str, Any] = {}
        for layer in reversed(self.layers):
            merged = _merged(merged, layer.values)
        return merged

    def owner(self, location: Sequence[str | int]) -> Layer:
        """The file that says `location`, or what holds it where it is absent."""
        candidates: list[tuple[Layer, Any]] = [(layer, layer.values) for layer in self.layers]
        for part in location:
            below = [(layer, found) for layer, node in candidates if (found := step_into(node, part)) is not None]
            if not below:
                break
            # What is no section replaces what is beneath it, and is hidden by a section that is above it.
            sections = [isinstance(node, dict) for _, node in below]
            candidates = below[: sections.index(False) or 1] if False in sections else below
        return candidates[0][0]

    def error(self, location: Sequence[str | int], message: str, remedy: str = "") -> PolicyError:
        """What is wrong at `location`, where a user can change it: of a preset's key, the `extends` that names it."""
        layer = self.owner(location)
        if not layer.preset:
            return layer.document.error(location, message, remedy)
        line, column = self._last().spot((KEY,))
        message = f"{message} (from the preset {layer.preset})"
        return PolicyError(
            message, path=self._last().path, line=line, column=column, key=dotted(location), remedy=remedy
        )

    def place(self, location: Sequence[str | int]) -> Place:
        """As `Document.place`, in the file that says it; of a preset's key, the `extends` that names it."""
        layer = self.owner(location)
        return self._last().place((KEY,)) if layer.preset else layer.document.place(location)

    def order(self, problem: PolicyError) -> tuple[int, int]:
        """Problems of the own file first, each file's by line."""
        paths = [layer.document.path for layer in self.layers]
        return (paths.index(problem.path) if problem.path in paths else len(paths), problem.line)

    def _last(self) -> Document:
        """The last file of the user's."""
        return next(layer.document for layer in reversed(self.layers) if not layer.preset)


def read_written(path: Path) -> Written:
    """The policy file at `path` and every file that it extends, of which only the keys are looked at.

    Raises:
        PolicyError: a file cannot be read or is no YAML of ours; a word that is no preset; a circle; too many files.
    """
    layers = [_layer(parse_document(path, read_bounded(path)), "")]
    while (named := extended(layers[-1].document)) is not None:
        layers.append(_next(layers, named))
        if len(layers) > MAX_FILES:
            raise layers[-2].document.error((KEY,), f"a policy has at most {MAX_FILES} files", "extend fewer")
    if len(layers) > 1:
        _check_own(layers)
    start = path.parent
    rest = (
        replace(layer, values=rebased(layer.values, layer.document.path.parent, start, bundled=bool(layer.preset)))
        for layer in layers[1:]
    )
    return Written((layers[0], *rest))


def extended(document: Document) -> str | None:
    """What the file extends: a preset, or a path relative to it; None where it stands alone.

    Raises:
        PolicyError: it is neither.
    """
    node = document.node(KEY)
    if node is None:
        return None
    word = node.value if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str" else ""
    expected = f"expected one of {', '.join(PRESETS)}, or the path of a policy"
    if word in PRESETS:
        return word
    named = ("/" in word or word.endswith(_SUFFIXES)) and word.isprintable() and len(word) <= _MAX_PATH
    if not named:
        close = difflib.get_close_matches(word, PRESETS, n=1)
        got = repr(word[:60]) if word else "no word"
        raise document.error((KEY,), f"{expected}, got {got}", f"did you mean {close[0]}?" if close else "")
    if Path(word).is_absolute():
        raise document.error((KEY,), f"{expected}, relative to this file, got {word[:60]!r}", "name it from here")
    return word


def _next(layers: Sequence[Layer], named: str) -> Layer:
    """The file that the last of `layers` extends."""
    document = layers[-1].document
    path = bundled_folder() / f"{named}.yaml" if named in PRESETS else document.path.parent / named
    if any(os.path.realpath(path) == os.path.realpath(layer.document.path) for layer in layers):
        raise document.error((KEY,), f"goes round in a circle: {named} is what is being extended", "take it out")
    try:
        data = read_bounded(path)
    except PolicyError as error:
        raise document.error((KEY,), f"{named}: {error.message}", error.remedy) from error
    layer = _layer(parse_document(path, data), named if named in PRESETS else "")
    schemas = [one.values.get("schema") for one in (layers[-1], layer)]
    if schemas[0] != schemas[1]:
        raise document.error((KEY,), f"expected a policy of the same schema, got {str(schemas[1])[:60]!r}")
    return layer


def _layer(document: Document, preset: str) -> Layer:
    values = document.values()
    values.pop(KEY, None)
    return Layer(document, values, preset)


def _check_own(layers: Sequence[Layer]) -> None:
    own, others = layers[0], layers[1:]
    for key in _OWN:
        if key not in own.values:
            raise own.document.error((key,), f"is required and absent: every policy has its own {key}")
    if own.values["name"] in [layer.values.get("name") for layer in others]:
        raise own.document.error(("name",), "expected another name than that of the policy it extends")


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _merged(below[key], value) if key in below else value for key, value in above.items()}}


def step_into(node: Any, part: str | int) -> Any:
    """What is at `part` of a section or list; None where nothing is."""
    if isinstance(node, dict):
        return node.get(part)
    if isinstance(node, list) and isinstance(part, int) and part < len(node):
        return node[part]
    return None
