"""Which names a reader takes for the same, although a registry keeps them apart."""

from __future__ import annotations

import unicodedata
from typing import Final

# Letters to a regular expression, and so to MLflow, and nothing to the eye: the Hangul fillers.
_INVISIBLE: Final = frozenset("\u115f\u1160\u3164\uffa0")


def folded(name: str) -> str:
    """`name` without what a reader does not see or does not tell apart: width, case, marks, fillers, space around it.

    Letters of other scripts that look alike (Cyrillic o and Latin o) stay apart.
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    kept = (char for char in plain if unicodedata.category(char) not in ("Mn", "Cf", "Cc") and char not in _INVISIBLE)
    return unicodedata.normalize("NFKC", "".join(kept)).casefold().strip()
