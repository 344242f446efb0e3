"""`FORMAT=FILE`, as a user writes it, of a document that has some formats."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from quantguard.core.errors import UsageError


def parse_outputs(texts: Iterable[str], formats: Collection[str], document: str) -> tuple[tuple[str, Path], ...]:
    """`json=proof.json` and the like, as format and file each.

    Args:
        document: what has these formats, in words.

    Raises:
        UsageError: an unknown format, no file, or the same file twice.
    """
    outputs = []
    for text in texts:
        name, _, file = text.partition("=")
        if name not in formats:
            remedy = f"use FORMAT=FILE with {', '.join(formats)}"
            raise UsageError(f"{name!r} is no format of {document}", remedy=remedy)
        if not file:
            raise UsageError(f"{text!r} names no file", remedy=f"write {name}=FILE")
        outputs.append((name, Path(file)))
    if len({file for _, file in outputs}) != len(outputs):
        raise UsageError("two outputs name the same file", remedy="give each format a file of its own")
    return tuple(outputs)
