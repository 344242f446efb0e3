"""Where in the checkout a remark points to, and files that are not what they should be."""

from __future__ import annotations

from collections.abc import Iterable

from quantguard.check.remarks import INVALID
from quantguard.core.errors import PolicyError
from quantguard.core.remark import Level, Place, Remark


def shown_path(path: str) -> str:
    """`path` as text that can be written down: bytes that are not UTF-8 as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_place(path: str) -> Place:
    """The first line of a file of which nothing is known, not even whether it is there."""
    return Place(shown_path(path), 1, 1, 1, 1)


def line_place(path: str, data: bytes, line: int) -> Place:
    """What is written on a line, counted from 1; the first line where it is 0."""
    number = max(line, 1)
    lines = data.decode("utf-8", "replace").splitlines()
    text = lines[number - 1].rstrip() if number <= len(lines) else ""
    begin = len(text) - len(text.lstrip())
    return Place(shown_path(path), number, begin + 1, number, len(text) + 1)


def invalid_remarks(path: str, data: bytes, problems: Iterable[PolicyError]) -> tuple[Remark, ...]:
    """Everything wrong with the file at `path`, which holds `data`, each at its line."""
    return tuple(
        Remark(
            INVALID,
            Level.ERROR,
            f"{f'{error.key}: ' if error.key else ''}{error.message}{f' ({error.remedy})' if error.remedy else ''}",
            line_place(path, data, error.line),
            error.key,
        )
        for error in problems
    )
