"""Vocabularies that do not match the weights, the configuration, or each other.

More rows in the embedding than tokens are padding, and common. A token without a row ends the process that embeds it;
a token that is one word to one loader and another to the next makes what was measured something else than what runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from quantguard.checkpoint.files import quote
from quantguard.checkpoint.layout import CONFIG, Checkpoint, TensorEntry
from quantguard.checkpoint.token_files import TOKEN_FILES, Tokens, read_tokens
from quantguard.core.errors import CheckpointError
from quantguard.core.finding import Finding, Severity

# Modules that turn the ids of the vocabulary into vectors; positions, types and layers have embeddings too.
_TOKEN_EMBEDDINGS: Final = frozenset(
    {"embed_in", "embed_tokens", "embeddings", "shared", "tok_embeddings", "token_embedding", "word_embeddings", "wte"}
)


@dataclass(slots=True)
class _Known:
    """What the files read so far say."""

    texts: dict[int, str] = field(default_factory=dict)
    ids: dict[str, frozenset[int]] = field(default_factory=dict)


def vocabulary_findings(checkpoint: Checkpoint) -> Iterator[Finding]:
    """What does not match, the weights first and then the files in a fixed order."""
    sizes = _config_sizes(checkpoint.config)
    embeddings = [entry for entry in checkpoint.tensors if _is_token_embedding(entry)]
    for entry in embeddings:
        if sizes and entry.shape[0] not in sizes:
            message = f"has {entry.shape[0]} rows; {CONFIG} says vocab_size {' or '.join(map(str, sorted(sizes)))}"
            yield _finding(Severity.HIGH, entry.name, f"{message}: save the model and its configuration again")
    rows = max((entry.shape[0] for entry in embeddings), default=max(sizes, default=None))
    known = _Known()
    for file in TOKEN_FILES:
        try:
            sources = read_tokens(checkpoint.root, file)
        except CheckpointError as error:
            yield Finding("checkpoint.unreadable", Severity.HIGH, file, error.message)
            continue
        for tokens in sources:
            yield from _disagreements(tokens, file, known)
            if rows is not None:
                yield from _without_row(tokens, file, rows)


def _finding(severity: Severity, where: str, message: str) -> Finding:
    return Finding("checkpoint.vocabulary", severity, where, message)


def _config_sizes(config: Mapping[str, Any]) -> frozenset[int]:
    """Every `vocab_size` of the configuration and of its parts."""
    sizes, pending = set(), [config]
    while pending:
        part = pending.pop()
        if type(size := part.get("vocab_size")) is int:
            sizes.add(size)
        pending += [value for key, value in part.items() if key.endswith("config") and isinstance(value, dict)]
    return frozenset(sizes)


def _is_token_embedding(entry: TensorEntry) -> bool:
    module, _, parameter = entry.name.rpartition(".")
    return parameter == "weight" and len(entry.shape) == 2 and module.rpartition(".")[2] in _TOKEN_EMBEDDINGS


def _disagreements(tokens: Tokens, file: str, known: _Known) -> Iterator[Finding]:
    """One id with two texts, or one text with two ids, within the file or against those before it."""
    ids: dict[str, set[int]] = {}
    for text, number in tokens.pairs:
        ids.setdefault(text, set()).add(number)
        other = known.texts.setdefault(number, text)
        if other != text and not _same(other, text):
            message = f"gives id {number} to {quote(text, 40)}, which is also {quote(other, 40)}"
            yield _finding(Severity.HIGH, file, f"{message}: make the tokenizer's files agree")
    for text, numbers in ids.items():
        before = known.ids.setdefault(text, frozenset(numbers))
        if not numbers & before or (len(numbers) > 1 and not tokens.repeats):
            both = sorted(numbers | before)
            message = f"gives the token {quote(text, 40)} the id {both[0]} and {both[-1]}, here or beside another file"
            yield _finding(Severity.HIGH, file, f"{message}: make the tokenizer's files agree")


def _without_row(tokens: Tokens, file: str, rows: int) -> Iterator[Finding]:
    text, number = max(tokens.pairs, key=lambda pair: pair[1], default=("", -1))
    if number >= rows:
        kind = "added token" if tokens.added else "token"
        message = f"the {kind} {quote(text, 40)} has id {number}, and the embedding has {rows} rows: it cannot be read"
        # gemma-3-1b is published with one added token too many, that of images, which its text model never meets.
        severity = Severity.MEDIUM if tokens.added else Severity.HIGH
        yield _finding(severity, file, f"{message}; remove it, or resize the embedding")


def _byte_alphabet() -> Iterable[tuple[int, int]]:
    """GPT-2's alphabet (its `bytes_to_unicode`): bytes that print stand for themselves, the rest from U+0100 on."""
    shown = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in shown]
    yield from ((byte, byte) for byte in shown)
    yield from ((256 + i, byte) for i, byte in enumerate(hidden))


_BYTES: Final = dict(_byte_alphabet())  # character -> byte


def _same(one: str, other: str) -> bool:
    """Whether two texts are one token, written plainly in one place and in a model's alphabet in the other."""
    return bool(_spellings(one) & _spellings(other))


def _spellings(text: str) -> set[str]:
    spelled = {text, text.replace("▁", " ")}  # SentencePiece writes spaces as ▁
    if all(ord(character) in _BYTES for character in text):
        spelled.add(bytes(_BYTES[ord(character)] for character in text).decode("utf-8", errors="replace"))
    return spelled
