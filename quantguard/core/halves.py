"""Two halves of a set of prompts: in the one something is looked for, in the other what was found is counted.

Who counts on the answers in which he found it counts his luck too.
"""

from __future__ import annotations

import hashlib


def counted(row: int) -> bool:
    """Whether the prompt in this row of the set is of the half that is counted: one of each two, by a coin.

    A file may alternate between two kinds of prompts, so that every other one would not be a fair half.
    """
    coin = hashlib.sha256(f"half/{row // 2}".encode()).digest()[0]
    return (row + coin) % 2 == 0


def counted_rows(prompts: int) -> int:
    """How many of so many are counted."""
    return sum(map(counted, range(prompts)))
