"""Text that others wrote, made harmless. Names, paths and model answers come from whoever made the model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Controls (ANSI escapes, newlines), formats (bidirectional overrides), surrogates, private, unassigned, separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str, limit: int = 200) -> str:
    """`text` on one line with every character that a terminal might act on written as an escape.

    Longer than `limit` characters (> 3) it is cut and ends in three dots.
    """
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(_escape(character) for character in cut)


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    plain = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _NAMED.get(character, plain)


def code_span(text: str, limit: int = 200) -> str:
    """`text` as a Markdown code span: no link, mention, image, HTML or emphasis is alive inside it.

    Not for table cells, where a pipe ends the cell even inside a code span.
    """
    shown = visible(text, limit) or "(empty)"
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    # One space beside a backtick keeps it from joining the fence; Markdown takes it away again.
    pad = " " if "`" in (shown[0], shown[-1]) or (shown[0] == shown[-1] == " ") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def fenced(lines: Iterable[str]) -> str:
    """`lines`, each made visible by the caller, as a Markdown code block that none of them can end."""
    body = "\n".join(lines)
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}"
