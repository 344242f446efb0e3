from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantguard.report.text import code_span, visible

ANY_TEXT = st.text(max_size=80) | st.text("`|\\ \n\x1b[]<>@#*_a", max_size=40)


@given(ANY_TEXT, st.integers(4, 50))
def test_visible_text_is_one_short_line_that_no_terminal_acts_on(text: str, limit: int) -> None:
    shown = visible(text, limit)
    assert len(visible("a" * 1000, limit)) == limit
    assert shown.isprintable() or all(unicodedata.category(c) == "Zs" for c in shown if not c.isprintable())
    shown.encode("utf-8")


def test_plain_text_is_shown_as_it_is() -> None:
    text = "model.layers.0.self_attn.q_proj.weight – größer als 模型 🙂"
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("", ""),
    ],
)
def test_hidden_characters_become_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(ANY_TEXT)
def test_a_code_span_is_closed_by_its_own_fence_only(text: str) -> None:
    span = code_span(text)
    match = re.fullmatch(r"(`+)(.*?)(?<!`)\1", span)
    assert match is not None
    fence, inside = match.groups()
    assert fence not in re.findall("`+", inside)
    assert inside.strip(" ").startswith((visible(text, 200) or "(empty)").strip(" ")[:1])
    assert "\n" not in span
