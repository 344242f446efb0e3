"""Where a policy names files: the one list for all who read, copy or mount them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from quantguard.core.bundled import PREFIX, is_bundled
from quantguard.core.calibration import NEUTRAL, SELF
from quantguard.core.suites import BUILTIN
from quantguard.policy.document import Location

_PROMPTS: Final = frozenset({NEUTRAL, SELF})
# Each key that names a file, `*` for any key or entry, and the words that mean no file there.
NAMED: Final[Mapping[tuple[str, ...], frozenset[str]]] = MappingProxyType(
    {
        ("harden", "calibration", "prompts"): _PROMPTS,
        ("counterfactual", "prompts"): _PROMPTS,
        ("perplexity", "prompts"): _PROMPTS,
        ("triggers", "prompts"): _PROMPTS,
        ("triggers", "list"): frozenset(),
        ("attack_success", "*", "probes"): frozenset({BUILTIN}),
        ("benchmarks", "*", "path"): frozenset(),
    }
)


def named_files(values: Any) -> Iterator[tuple[Location, str]]:
    """(place, name) of every file of the user's that `values`, a policy as it is written, names."""
    for keys, words in NAMED.items():
        for location, name in _found(values, keys, ()):
            if name not in words and not is_bundled(name):
                yield location, name


def rebased(values: Any, folder: Path, start: Path, *, bundled: bool) -> Any:
    """`values` of a policy in `folder`, with the files named as a policy in `start` would name them.

    `bundled`: the policy comes with QuantGuard, and so does what it names.
    """

    def name(old: str) -> str:
        if posixpath.isabs(old):
            return old
        if bundled:
            return f"{PREFIX}{old}"
        return Path(os.path.relpath(folder / old, start)).as_posix()

    for location, old in list(named_files(values)):
        values = _with(values, location, name(old))
    return values


def _found(node: Any, keys: tuple[str, ...], location: Location) -> Iterator[tuple[Location, str]]:
    if not keys:
        if isinstance(node, str):
            yield location, node
        return
    key, *rest = keys
    if isinstance(node, list) and key == "*":
        below: list[tuple[str | int, Any]] = list(enumerate(node))
    elif isinstance(node, dict):
        below = [(name, node[name]) for name in (node if key == "*" else (key,)) if name in node]
    else:
        return
    for name, value in below:
        yield from _found(value, tuple(rest), (*location, name))


def _with(node: Any, location: Location, value: Any) -> Any:
    """`node` with another value at `location`."""
    if not location:
        return value
    part, *rest = location
    copied = node.copy()
    copied[part] = _with(node[part], tuple(rest), value)
    return copied
