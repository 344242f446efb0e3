"""The ledger: what was decided, in the order in which it was, in a file that is only ever appended to.

Each entry is signed and names the line before it, so nothing in the middle can be changed, moved or taken out unnoticed
(`ledger_verify`). What is taken off the end is noticed by an anchor (`ledger_anchors`): a copy of the last line,
somewhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from mmap import mmap
from pathlib import Path
from typing import Final

from quantguard.core.attestation import timestamp
from quantguard.core.errors import EvidenceError, LedgerError
from quantguard.evidence.dsse import sign
from quantguard.evidence.keys import Signer
from quantguard.evidence.ledger_entry import (
    GENESIS,
    MOST_BYTES,
    PAYLOAD_TYPE,
    Decided,
    Entry,
    Signed,
    line_digest,
    parse_line,
    payload_of,
)
from quantguard.evidence.ledger_file import (
    Intent,
    append_bytes,
    intent_path,
    mapped,
    opened_to_append,
    opened_to_read,
    read_intent,
    write_intent,
)

_VERIFY: Final = "run quantguard ledger verify, and keep the file as it is for whoever looks into it"
Content = mmap | bytes


@dataclass(frozen=True, slots=True)
class Appended:
    entry: Entry
    line: bytes  # as it stands in the ledger, without its line feed
    new: bool  # False where this decision had been entered before
    finished: int  # sequence of another writer's entry that was finished first; 0 where there was none


def append(path: Path, decided: Decided, signer: Signer, *, now: datetime, anchors: tuple[bytes, ...] = ()) -> Appended:
    """Enter a decision, once: where its digest is in the ledger already, that entry is the answer.

    It is on the disk when this returns. `anchors` are last lines of this ledger that were kept elsewhere; each must
    still be in it.

    Raises:
        LedgerError: the ledger is not the one that was written; nothing was appended.
        EvidenceError: it cannot be read or written (no ordinary file, disk full, no locks).
    """
    with opened_to_append(path) as descriptor:
        finished = _finish(descriptor, path)
        with mapped(descriptor) as content:
            size = len(content)
            last = last_entry(content, path)
            require_anchored(content, anchors, path)
            found = find_decision(content, decided.decision)
        if found is not None:
            return Appended(found[0], found[1], False, finished)
        entry = Entry(
            sequence=1 if last is None else last[0].sequence + 1,
            previous=GENESIS if last is None else line_digest(last[1]),
            time=timestamp(now),
            decided=decided,
        )
        line = _signed(entry, signer)
        intent = Intent(size, line + b"\n")
        write_intent(path, intent)
        append_bytes(descriptor, path, intent.line)
        return Appended(entry, line, True, finished)


def finish(path: Path) -> int:
    """Finish the append of a writer that was killed; the sequence of that entry, 0 where there was none.

    Raises:
        LedgerError, EvidenceError: as for `append`.
    """
    with opened_to_read(path):
        pass  # it is there: finishing makes no ledger
    with opened_to_append(path) as descriptor:
        return _finish(descriptor, path)


def read_last(path: Path) -> bytes | None:
    """The last line, without its line feed: what an anchor keeps. None where the ledger is empty.

    Raises:
        LedgerError, EvidenceError: as for `append`.
    """
    with opened_to_read(path) as descriptor, mapped(descriptor) as content:
        last = last_entry(content, path)
        return None if last is None else last[1]


def read_entries(path: Path) -> Iterator[Entry | None]:
    """Every line's entry, None for a line that is none. Nothing of it is verified.

    Raises:
        EvidenceError: it cannot be read.
    """
    with opened_to_read(path) as descriptor, mapped(descriptor) as content:
        for line in read_lines(content):
            try:
                yield parse_line(line.removesuffix(b"\n")).entry
            except EvidenceError:
                yield None


def read_lines(content: Content) -> Iterator[bytes]:
    """The lines with their line feeds, which the last may lack; one that is longer than any entry comes in pieces."""
    start = 0
    while start < len(content):
        feed = content.find(b"\n", start, start + MOST_BYTES)
        end = min(start + MOST_BYTES, len(content)) if feed < 0 else feed + 1
        yield content[start:end]
        start = end


def last_entry(content: Content, path: Path) -> tuple[Entry, bytes] | None:
    """The last entry and its line; None where there is none.

    Raises:
        LedgerError: the last line is no entry, or is cut.
    """
    if not content:
        return None
    start = content.rfind(b"\n", max(0, len(content) - MOST_BYTES), len(content) - 1) + 1
    line = content[start:]
    if not line.endswith(b"\n"):
        raise LedgerError("it ends in the middle of a line", path=path, remedy=_VERIFY)
    try:
        return parse_line(line[:-1]).entry, line[:-1]
    except EvidenceError as error:
        raise LedgerError(f"its last line is {error.message}", path=path, remedy=_VERIFY) from error


def find_decision(content: Content, decision: str) -> tuple[Entry, bytes] | None:
    """The entry of a signed decision, by the decision's digest."""
    for line in _holding(content, b'"decision":"%s"' % decision.encode()):
        entry = parse_line(line).entry
        if entry.decided.decision == decision:
            return entry, line
    return None


def require_anchored(content: Content, anchors: tuple[bytes, ...], path: Path) -> None:
    """Every anchor is a line of this ledger.

    Raises:
        LedgerError: one is not: the ledger was cut since, or it is another.
    """
    for anchor in anchors:
        if find_line(content, anchor) < 0:
            raise LedgerError(f"{told_of(anchor)} was anchored, and is not in it", path=path, remedy=_VERIFY)


def find_line(content: Content, line: bytes) -> int:
    """Where a line begins; -1 where it is not there."""
    if content[: len(line) + 1] == line + b"\n":
        return 0
    at = content.rfind(b"\n" + line + b"\n")
    return at + 1 if at >= 0 else -1


def told_of(line: bytes) -> str:
    """The entry of a line, in words."""
    try:
        return f"entry {parse_line(line).entry.sequence}"
    except EvidenceError:
        return "what is no entry"


def _holding(content: Content, text: bytes) -> Iterator[bytes]:
    """Lines that hold `text`, last first."""
    end = len(content)
    while (at := content.rfind(text, 0, end)) >= 0:
        start = content.rfind(b"\n", max(0, at - MOST_BYTES), at) + 1
        feed = content.find(b"\n", at, at + MOST_BYTES)
        if feed >= 0:
            yield content[start:feed]
        end = start


def _signed(entry: Entry, signer: Signer) -> bytes:
    (signature,) = sign(PAYLOAD_TYPE, payload_of(entry), signer).signatures
    line = Signed(entry, signature).line()
    if len(line) >= MOST_BYTES:
        raise EvidenceError(f"an entry of {len(line)} bytes", remedy="use shorter names")
    parse_line(line)  # what could not be read back is not written
    return line


def _finish(descriptor: int, path: Path) -> int:
    """Bring to its end what the intent says was begun.

    Only what goes on exactly as the intent says, after the line that it names, is finished; so a ledger that was cut is
    either made whole again or refused, and never continued as it is.
    """
    intent = read_intent(path)
    if intent is None:
        return 0
    with mapped(descriptor) as content:
        size, there = len(content), content[intent.offset : intent.offset + len(intent.line)]
        if there == intent.line:
            return 0
        if size < intent.offset:
            told = f"it is {intent.offset - size} bytes shorter than before its last append"
            raise LedgerError(told, path=path, remedy=_VERIFY)
        before = last_entry(content[: intent.offset], path)
    try:
        entry = parse_line(intent.line.removesuffix(b"\n")).entry
    except EvidenceError as error:
        beside = intent_path(path)
        raise LedgerError(
            f"what its last writer was appending is {error.message}", path=beside, remedy=_VERIFY
        ) from error
    if entry.previous != (GENESIS if before is None else line_digest(before[1])) or not intent.line.startswith(there):
        raise LedgerError(f"it does not go on with entry {entry.sequence} as it did", path=path, remedy=_VERIFY)
    append_bytes(descriptor, path, intent.line[len(there) :])
    return entry.sequence
