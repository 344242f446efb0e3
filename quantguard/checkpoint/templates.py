"""Where the chat templates of a model stand, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from jinja2 import TemplateError

from quantguard.checkpoint.files import Pairs, read_bounded
from quantguard.checkpoint.template_flow import TooTangledError
from quantguard.checkpoint.template_rules import complaints, parse

MAX_TEMPLATE: Final = 64 * 1024  # bytes; the longest published ones have some 20 kB, and this much may take a second
MAX_TEMPLATES: Final = 2 * MAX_TEMPLATE  # characters of all templates of a file, each counted as 500 at least
SUFFIXES: Final = (".jinja", ".jinja2", ".j2")
_KEYS: Final = frozenset({"chat_template", "chat_templates"})
_SHOWN: Final = 3  # complaints named in a message


def templates_in(members: Pairs) -> Iterator[str]:
    """The chat templates among the members of a JSON file, however often the key occurs.

    transformers takes a text, a list of {"name", "template"}, or a map from names to texts.
    """
    seen: set[int] = set()  # containers: of such keys in one another, each would find all that is below again
    for key, value in members:
        if key in _KEYS:
            yield from _texts(value, seen)


def _texts(value: Any, seen: set[int]) -> Iterator[str]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list | dict) and id(item) not in seen:
            seen.add(id(item))
            pending.extend(item if isinstance(item, list) else item.values())


def read_template(root: Path, name: str) -> str:
    """The text of a template that is a file of its own.

    Raises:
        UnsafeCheckpointError: not a regular file.
        CheckpointError: absent, unreadable or larger than MAX_TEMPLATE.
    """
    # What is no UTF-8 is not rendered either; replaced, it is judged by the rest.
    return read_bounded(root, name, MAX_TEMPLATE).decode("utf-8", errors="replace")


def refused_templates(texts: Iterable[str]) -> Iterator[str]:
    """What is wrong with any of the templates of one file, each complaint once."""
    told: set[str] = set()
    total = 0
    for text in texts:
        total += max(len(text), 500)
        if total > MAX_TEMPLATES:
            yield f"its chat templates have more than {MAX_TEMPLATES} characters"
            return
        wrong = refused_template(text)
        if wrong is not None and wrong not in told:
            told.add(wrong)
            yield wrong


def refused_template(text: str) -> str | None:
    """What is wrong with a chat template, as a sentence; None where nothing is. It is parsed and never rendered."""
    if len(text) > MAX_TEMPLATE:
        return f"its chat template has more than {MAX_TEMPLATE} characters"
    try:
        found = list(islice(dict.fromkeys(complaints(parse(text))), _SHOWN + 1))
    except RecursionError:
        return "its chat template is nested too deep to be judged"
    except (TooTangledError, ValueError) as error:  # the latter of a number with thousands of digits
        return f"its chat template cannot be judged: {error}"
    except TemplateError as error:
        return f"its chat template is none that transformers can parse: {_line(error)}"
    if not found:
        return None
    return f"its chat template {'; '.join(found[:_SHOWN])}{'; and more' if len(found) > _SHOWN else ''}"


def _line(error: TemplateError) -> str:
    """The error's first line without control characters: it quotes the template."""
    return ascii((error.message or type(error).__name__).split("\n", 1)[0][:120])[1:-1]
