from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantguard.core.errors import PolicyError
from quantguard.policy.document import MAX_BYTES, parse_document, read_bounded

BOMB = b"a: &a [x, x, x, x]\n" + b"".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}, *{chr(97 + i)}]\n".encode() for i in range(20)
)


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (BOMB, 2, "aliases are refused"),
        (b"a: " + b"[" * 100_000, 1, "nested too deeply"),
        (b"a: [" + b"1," * 50_000 + b"]", 1, "too many entries"),
        (b"a: 1\nb: [1, 2", 2, "is not YAML"),
        (b"a: 1\n\xff\xfe: 2", 2, "is not UTF-8"),
        (b"a: 1\nb: \x07", 0, "is not YAML"),
        (b"a: 1\n---\nb: 2\n", 2, "is not YAML"),
        (b"- a\n- b\n", 1, "expected keys and values"),
        (b"", 1, "expected keys and values"),
        (b"a: !!python/object/apply:os.system [id]\n1: b\n", 2, "expected a plain word as the key"),
        (b"a: !run x\n", 1, "the YAML tag !run is refused"),
        (b"a: !!python/name:os.system x\n", 1, "put quotes around it"),
        (b"<<: {a: 1}\n", 1, "expected a plain word as the key"),
        (b"? [a, b]\n: 1\n", 1, "expected a plain word as the key"),
        (b"a: !!float abc\n", 1, "plain decimal number"),
        (b"a: !!bool maybe\n", 1, "put quotes around it"),
        (b"a: " + b"9" * 5000, 1, "plain decimal number"),
        (b'a: "\\ud800"\n', 1, "half of a character"),
        (b"a:\n  b: 1\n  b: 2\n", 3, "a.b: is given twice"),
        (b"a: [1, 2, ~]\n", 1, "a[2]: has no value"),
    ],
)
def test_hostile_yaml_is_a_policy_error_that_names_the_line(data: bytes, line: int, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_document(Path("p.yaml"), data).values()
    assert caught.value.line == line
    assert words in str(caught.value)


def test_a_file_over_the_limit_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * MAX_BYTES)
    assert len(read_bounded(path)) == MAX_BYTES
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(PolicyError, match="larger than"):
        read_bounded(path)


def test_a_policy_that_is_no_file_is_a_policy_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(PolicyError, match="cannot be read"):
            read_bounded(path)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_document_or_a_policy_error(data: bytes) -> None:
    try:
        values = parse_document(Path("p.yaml"), data).values()
    except PolicyError:
        return
    json.dumps(values, ensure_ascii=False).encode()


WORDS = st.text("abcXYZ äß°€𐀀:#-'\"[]{},&*!|>%@`~?", min_size=1)
SCALARS = st.booleans() | st.integers(-(10**15), 10**15) | st.decimals(-9, 9, places=3).map(float) | WORDS


@given(st.dictionaries(WORDS, SCALARS | st.lists(SCALARS, max_size=3), min_size=1, max_size=5))
def test_json_reads_as_itself(value: dict[str, object]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert parse_document(Path("p.yaml"), text.encode()).values() == value
