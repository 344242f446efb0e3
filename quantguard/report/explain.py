"""What a rule means, as text for a terminal."""

from __future__ import annotations

import textwrap
from typing import Final

from quantguard.core.errors import UsageError
from quantguard.report.rules import RULES, known_as, nearest, paragraphs
from quantguard.report.text import visible

ALL: Final = "list"  # asked for instead of a rule
_WIDTH: Final = 88


def explanation(rule: str, *, more: str = f"`--explain {ALL}`") -> str:
    """What there is to tell of `rule`, or of `list`: one line for each rule. `more` is what lists them all.

    Raises:
        UsageError: there is no such rule; the ones that may be meant are named.
    """
    if rule == ALL:
        return _list()
    known = known_as(rule)
    if known is None:
        likely = nearest(rule)
        meant = f"did you mean {' or '.join(likely)}?" if likely else f"there are {', '.join(RULES)};"
        raise UsageError(f"no rule '{visible(rule)}'", remedy=f"{meant} {more} tells what each is about")
    parts = (f"{heading}\n{_wrapped(text)}" for heading, text in paragraphs(RULES[known]))
    return "\n\n".join((f"{known}\n{_wrapped(RULES[known].short + '.')}", *parts)) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _list() -> str:
    width = max(map(len, RULES))
    return "".join(f"{name:<{width}}  {rule.short}\n" for name, rule in RULES.items())
