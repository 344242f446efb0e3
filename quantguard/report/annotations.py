"""Remarks as GitHub workflow commands, which a step prints for the runner to show.

The runner keeps ten of a kind for a whole step and drops the others without a word, so the tenth says how many more
there are. Escapes are those of the runner's own `ActionCommand`: a text from outside cannot start a command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from quantguard.core.remark import Level, Place, Remark
from quantguard.report.text import visible

MOST: Final = 10  # of a kind in one step
_MESSAGE, _NAME, _FILE = 2000, 200, 1000  # characters


def render_annotations(remarks: Sequence[Remark], *, rest: str = "the job summary and the JSON report") -> str:
    """One command a line, errors first; empty where there is nothing to tell.

    `rest` says where all the remarks can be read. Everything that a step prints must come from one call.
    """
    lines = [line for level in Level for line in _kind(level, [r for r in remarks if r.level is level], rest)]
    return "".join(line + "\n" for line in lines)


def _kind(level: Level, remarks: Sequence[Remark], rest: str) -> Iterator[str]:
    shown = remarks if len(remarks) <= MOST else remarks[: MOST - 1]
    for remark in shown:
        properties = {**_where(remark.place), "title": visible(remark.rule, _NAME)}
        yield _command(level, properties, visible(remark.message, _MESSAGE))
    if more := len(remarks) - len(shown):
        plural = "s" if more > 1 else ""
        yield _command(level, {"title": "QuantGuard"}, f"and {more} more {level.value}{plural}, all in {rest}")


def _where(place: Place | None) -> dict[str, str]:
    if place is None:
        return {}
    lines = {"file": visible(place.file, _FILE), "line": str(place.line), "endLine": str(place.end_line)}
    # The runner refuses columns of a stretch that is longer than a line.
    one_line = place.line == place.end_line
    return {**lines, **({"col": str(place.column), "endColumn": str(place.end_column)} if one_line else {})}


def _command(level: Level, properties: dict[str, str], message: str) -> str:
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level.value} {told}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
