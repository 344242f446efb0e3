"""Lists of triggers, honest and hostile: what is read is usable, and all else is an error that names the line."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.core.errors import PromptsError
from quantguard.core.triggers import MOST_CHARS, MOST_TRIGGERS, read_triggers, triggers_digest


def written(folder: Path, data: bytes, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_a_line_is_a_trigger_once_and_blank_ones_are_none(tmp_path: Path) -> None:
    data = "\ufeffxyzzy\r\n\n  two words \t\n\u200b\nxyzzy\nна\u2028и".encode()
    assert read_triggers(written(tmp_path, data)) == ("xyzzy", "two words", "\u200b", "на\u2028и")


def test_in_jsonl_spaces_are_part_of_a_trigger(tmp_path: Path) -> None:
    rows = '{"trigger": " xyzzy "}\n\n{"trigger": "caf\\u00e9"}\n'
    assert read_triggers(written(tmp_path, rows.encode(), "list.jsonl")) == (" xyzzy ", "café")


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"", "list.txt", "holds no triggers"),
        (b" \n\t\r\n", "list.txt", "holds no triggers"),
        (b"fine\nbe\x07ll\n", "list.txt", "line 2: the control character U+0007"),
        (b"fine\ntab\tinside\n", "list.txt", "line 2: the control character U+0009"),
        (b"fine\n\xff\xfe\n", "list.txt", "line 2: not UTF-8"),
        (b"fine\n" + b"x" * (MOST_CHARS + 1), "list.txt", f"line 2: {MOST_CHARS + 1} characters"),
        ("\n".join(map(str, range(MOST_TRIGGERS + 1))).encode(), "list.txt", "line 10001: more than 10,000 triggers"),
        (b'{"trigger": "x"}\nxyzzy', "list.jsonl", "line 2: not JSON"),
        (b'{"trigger": "x", "y": 1}', "list.jsonl", "line 1: not"),
        (b'{"trigger": 1}', "list.jsonl", "line 1: not"),
        (b'{"trigger": " "}', "list.jsonl", "line 1: an empty trigger"),
        (b'{"trigger": "\\ud800"}', "list.jsonl", "line 1: the lone surrogate U+D800"),
        (b"[" * 100_000, "list.jsonl", "line 1: not JSON"),
    ],
)
def test_what_is_no_list_is_told_with_its_line(tmp_path: Path, data: bytes, name: str, said: str) -> None:
    with pytest.raises(PromptsError, match=re.escape(said)) as raised:
        read_triggers(written(tmp_path, data, name))
    assert raised.value.remedy


def test_a_list_of_four_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    with path.open("wb") as file:
        file.truncate(4 * 2**30)
    with pytest.raises(PromptsError, match="larger than"):
        read_triggers(path)


def test_what_never_ends_or_is_not_there_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "absent", tmp_path, Path("/dev/zero")):
        with pytest.raises(PromptsError, match="No such file"):
            read_triggers(path)


@settings(max_examples=400, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))))
@pytest.mark.parametrize("name", ["list.txt", "list.jsonl"])
def test_any_bytes_are_a_list_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp(), data, name)
    try:
        found = read_triggers(path)
    except PromptsError:
        return
    assert found
    assert len(set(found)) == len(found)
    for trigger in found:
        assert trigger.strip()
        assert len(trigger) <= MOST_CHARS
        assert not {unicodedata.category(char) for char in trigger} & {"Cc", "Cs"}
    again = "\n".join(json.dumps({"trigger": trigger}) for trigger in found)
    assert read_triggers(written(path.parent, again.encode(), "again.jsonl")) == found


def test_the_digest_depends_on_every_trigger_and_their_order() -> None:
    lists = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", "c")]
    assert len({triggers_digest(each) for each in lists}) == len(lists)
