"""Something to tell a reader at a place in a file of their repository: what annotations and code scanning show."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """As GitHub annotates."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of text in a file."""

    file: str  # as the user names it: relative to the working directory where it lies below it; with slashes
    line: int  # from 1
    column: int  # from 1, in characters
    end_line: int  # >= line
    end_column: int  # from 1, just past the last character


@dataclass(frozen=True, slots=True)
class Remark:
    rule: str  # dotted id, e.g. attack_success.content_injection.max_upper_bound or check.looser
    level: Level
    message: str  # one sentence; may quote text from outside
    place: Place | None = None  # None: about no line of any file
    subject: str = ""  # what it is about beside the rule, e.g. a scheme or a model: keeps two remarks of one rule apart
