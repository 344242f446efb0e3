"""HTML that is safe by construction: text becomes markup by `element` alone, which escapes all that is not."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final

from quantguard.report.text import visible

_MOST = 2000  # characters of one text
_VOID: Final = frozenset({"br", "col", "meta"})


class Html(str):
    """Markup. Made here only; any other `str` is text."""

    __slots__ = ()


Child = str | Html
NOTHING: Final = Html("")


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Html:
    """`<name attributes>children</name>`; an attribute of None is left out.

    A keyword is an attribute's name with `_` for `-`, and one at its end where Python has the word: `class_`.
    """
    told = "".join(
        f' {_attribute(key)}="{_text(_value(value))}"' for key, value in attributes.items() if value is not None
    )
    opening = f"<{name}{told}>"
    return Html(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """One after the other."""
    return Html("".join(child if isinstance(child, Html) else _text(child) for child in children))


def style_sheet(css: str) -> Html:
    """A style element. `css` is our own: nothing in it is escaped."""
    return Html(f"<style>{css}</style>")


def _text(text: str) -> str:
    """Visible first, so that no direction mark and no control character of a name acts in the page."""
    return html.escape(visible(text, _MOST), quote=True)


def _attribute(key: str) -> str:
    return key.removesuffix("_").replace("_", "-")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
