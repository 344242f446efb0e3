"""The files in which tokens have ids: those of the `tokenizers` library, and the older ones beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quantguard.checkpoint.files import distinct, parse_json, quote, read_bounded
from quantguard.core.errors import CheckpointError

MAX_VOCABULARY: Final = 256 * 1024 * 1024  # bytes; the largest published tokenizer.json has some 35 MB
MAX_MARKS: Final = 8_000_000  # JSON costs memory by its values; 262,144 tokens and their merges have under 3 million


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that one part of a file lists."""

    pairs: tuple[tuple[str, int], ...]  # text and id, which is >= 0; attacker-controlled text
    added: bool  # beside the vocabulary that the model was trained with
    repeats: bool = False  # whether one text may well have several ids


def read_tokens(root: Path, name: str) -> tuple[Tokens, ...]:
    """The tokens of `name`, one of TOKEN_FILES; nothing where there is no such file, or it lists none.

    Raises:
        UnsafeCheckpointError: not a regular file.
        CheckpointError: too large, not JSON, a key twice, or not built as such a file is.
    """
    if not (root / name).exists():
        return ()
    data = read_bounded(root, name, MAX_VOCABULARY)
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_MARKS:
        raise CheckpointError(f"{quote(name)} has more entries than any vocabulary", path=root)
    try:
        return TOKEN_FILES[name](_object(parse_json(data, pairs=distinct)))
    except ValueError as error:
        raise CheckpointError(f"{quote(name)} is no vocabulary: {error}", path=root) from error


def _tokenizer(document: dict[str, Any]) -> tuple[Tokens, ...]:
    """tokenizer.json: a model with its vocabulary, and tokens that are cut out before it sees the text."""
    listed = _object(document.get("model")).get("vocab")
    if isinstance(listed, list):  # Unigram: [text, score] by id. CamemBERT's has <unk> twice.
        base = Tokens(tuple((_text(row[:1]), number) for number, row in enumerate(map(_list, listed))), False, True)
    else:
        base = Tokens(_numbered(_object(listed)), added=False)
    entries = [_object(entry) for entry in _list(document.get("added_tokens"))]
    added = tuple((_text([entry.get("content")]), _number(entry.get("id"))) for entry in entries)
    return base, Tokens(added, added=True)


def _vocabulary(document: dict[str, Any]) -> tuple[Tokens, ...]:
    """vocab.json. One that lists a vocabulary for each language (MMS) is no language model's and is passed over."""
    if any(isinstance(value, dict) for value in document.values()):
        return ()
    return (Tokens(_numbered(document), added=False),)


def _added(document: dict[str, Any]) -> tuple[Tokens, ...]:
    return (Tokens(_numbered(document), added=True),)


def _settings(document: dict[str, Any]) -> tuple[Tokens, ...]:
    """tokenizer_config.json: `added_tokens_decoder` has the text by id, the id as text."""
    listed = _object(document.get("added_tokens_decoder")).items()
    return (Tokens(tuple((_text([_object(entry).get("content")]), _decimal(key)) for key, entry in listed), True),)


TOKEN_FILES: Final[Mapping[str, Callable[[dict[str, Any]], tuple[Tokens, ...]]]] = {
    "tokenizer.json": _tokenizer,
    "vocab.json": _vocabulary,
    "added_tokens.json": _added,
    "tokenizer_config.json": _settings,
}


def _numbered(listed: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    return tuple((text, _number(number)) for text, number in listed.items())


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list | None):
        raise ValueError("what should be a list is none")  # noqa: TRY004
    return value or []


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise ValueError("what should be an object is none")  # noqa: TRY004
    return value or {}


def _text(values: list[Any]) -> str:
    if len(values) != 1 or not isinstance(values[0], str):
        raise ValueError("a token has no text")
    return values[0]


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**32:
        raise ValueError("the id of a token is not an unsigned 32-bit integer")
    return value


def _decimal(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= 10):
        raise ValueError(f"{quote(key, 24)} is not the id of a token")
    return _number(int(key))
