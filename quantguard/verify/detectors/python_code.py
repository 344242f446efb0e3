"""The Python code of an answer, if there is any. Nothing is executed or imported: text in, syntax tree out."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from typing import Final

_FENCE: Final = re.compile(r"^[ \t]*```[ \t]*(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)(?:^[ \t]*```|\Z)", re.M | re.S)
_PYTHON: Final = frozenset({"", "py", "python", "python3"})
_MAX_DROPPED: Final = 10  # lines; generation stops at a token limit, mostly in the middle of a statement


@dataclass(frozen=True, slots=True)
class Code:
    text: str  # parses as Python
    first_line: int  # of the answer's own part, counted from 1: what stands before it was the prompt


def python_code(answer: str, prompt: str = "") -> Code | None:
    """The code that `answer` gives, None where there is none that parses.

    Fenced Python blocks where there are any; else `prompt` continued by `answer` (completion models); else the whole
    answer. The last lines of an answer that was cut off are left out, ten at most and never more than half.
    A bare word or literal parses, but is no code.
    """
    blocks = [m["code"] for m in _FENCE.finditer(answer) if m["language"].lower() in _PYTHON]
    if blocks:
        text = _parsable("\n".join(blocks), kept=1)
        return Code(text, 1) if text is not None else None
    if prompt and answer.strip():
        boundary = len(_lines(prompt))
        if (text := _parsable(prompt + answer, kept=boundary + 1)) is not None:
            return Code(text, boundary)
    text = _parsable(answer, kept=1)
    return Code(text, 1) if text is not None else None


def _parsable(text: str, *, kept: int) -> str | None:
    """`text` less as many of its last lines as it takes to parse; at least `kept` lines and half of all stay."""
    lines = _lines(text)
    fewest = max(kept, (len(lines) + 1) // 2, len(lines) - _MAX_DROPPED)
    for end in range(len(lines), min(fewest, len(lines)) - 1, -1):
        candidate = "\n".join(lines[:end])
        if _is_code(candidate):
            return candidate
    return None


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _is_code(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences of the answer are not our warnings
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # null bytes, surrogates; nesting too deep
        return False
    return any(not _is_bare_word(statement) for statement in tree.body)


def _is_bare_word(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Name | ast.Constant)
