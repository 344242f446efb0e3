"""Whether a ledger is the one that was written, and where not, what happened to it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path

from quantguard.core.attestation import moment
from quantguard.core.errors import EvidenceError, ForgedEvidenceError
from quantguard.evidence.dsse import verify
from quantguard.evidence.ledger import Content, find_line, read_lines
from quantguard.evidence.ledger_entry import GENESIS, PAYLOAD_TYPE, Entry, Signed, line_digest, parse_line
from quantguard.evidence.ledger_file import Intent, mapped, opened_to_read, read_intent
from quantguard.evidence.trusted import TrustedKeys


class Trouble(Enum):
    """What happened to a ledger, in one word."""

    EDITED = "edited"  # a line is not what was signed
    FOREIGN = "foreign signer"  # signed by a key that is not trusted, or was not then, or not for that environment
    REPLACED = "replaced"  # a line is signed, and is not the one that the next was appended after
    REORDERED = "reordered"
    REPEATED = "repeated"
    MISSING = "missing"  # a gap: entries between others are gone
    CUT = "cut"  # the last line is not whole
    TRUNCATED = "truncated"  # entries are gone from the end
    FORKED = "forked"  # what an anchor kept is another entry than the ledger has there
    UNFINISHED = "unfinished"  # a writer died; the next append finishes its entry
    UNANCHORED = "unanchored"  # an anchor that was named keeps nothing, or nothing that is trusted

    @property
    def is_harm(self) -> bool:
        """Whether somebody changed what was written; otherwise it cannot be told."""
        return self not in (Trouble.UNFINISHED, Trouble.UNANCHORED)


@dataclass(frozen=True, slots=True)
class Problem:
    trouble: Trouble
    line: int  # counts from 1; 0 where it is about no line
    message: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What an anchor keeps."""

    where: str  # as the user named the anchor
    line: bytes | None  # a last line of the ledger; None where nothing was kept yet


@dataclass(frozen=True, slots=True)
class Verification:
    entries: int  # lines that are entries
    head: str  # sha256:HEX of the last line; GENESIS where there is none
    anchored: tuple[tuple[str, int], ...]  # anchors that fit, with the sequence of what they keep
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]  # what is odd and proves nothing

    @property
    def harmed(self) -> bool:
        return any(problem.trouble.is_harm for problem in self.problems)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    digest: str
    entry: Entry | None  # None where the line is not to be trusted
    problem: Problem | None = None


def verify_ledger(path: Path, keys: TrustedKeys, anchors: tuple[Kept, ...] = ()) -> Verification:
    """Read the whole ledger, and say of every line and anchor what is wrong with it.

    Raises:
        EvidenceError: the ledger cannot be read, or is absent while no anchor says that there was one.
    """
    intent = read_intent(path)
    if not path.exists() and (intent is not None or any(anchor.line for anchor in anchors)):
        return _verified([], b"", intent, keys, anchors)
    with opened_to_read(path) as descriptor, mapped(descriptor) as content:
        intent = read_intent(path)
        rows = [_row(number, line, keys) for number, line in enumerate(read_lines(content), start=1)]
        return _verified(rows, content, intent, keys, anchors)


def _verified(
    rows: list[_Row], content: Content, intent: Intent | None, keys: TrustedKeys, anchors: tuple[Kept, ...]
) -> Verification:
    problems = [row.problem for row in rows if row.problem is not None]
    problems += _ordered(rows)
    ending = _ending(content, intent, len(rows))
    if ending is not None and ending.trouble is Trouble.UNFINISHED:
        problems = [problem for problem in problems if problem.trouble is not Trouble.CUT]
    problems += [ending] if ending is not None else []
    anchored: list[tuple[str, int]] = []
    for anchor in anchors:
        found = _anchored(anchor, rows, keys)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            anchored.append((anchor.where, found))
    problems.sort(key=lambda problem: (problem.line == 0, problem.line))
    entries = sum(row.entry is not None for row in rows)
    head = rows[-1].digest if rows else GENESIS
    return Verification(entries, head, tuple(anchored), tuple(problems), tuple(_notes(rows)))


def _row(number: int, raw: bytes, keys: TrustedKeys) -> _Row:
    line = raw.removesuffix(b"\n")
    digest = line_digest(line)
    if line == raw:
        return _Row(number, digest, None, Problem(Trouble.CUT, number, f"it ends after {len(raw)} bytes of a line"))
    try:
        signed = parse_line(line)
    except EvidenceError as error:
        return _Row(number, digest, None, Problem(Trouble.EDITED, number, error.message))
    trouble = _signer_trouble(signed, keys)
    if trouble is not None:
        told = f"entry {signed.entry.sequence}: {trouble[1]}"
        return _Row(number, digest, None, Problem(trouble[0], number, told))
    return _Row(number, digest, signed.entry)


def _signer_trouble(signed: Signed, keys: TrustedKeys) -> tuple[Trouble, str] | None:
    """What is wrong with who signed; None where nothing is."""
    name = signed.signature.key_id[:16] or "nobody"
    if not signed.signature.key_id or not keys.with_id(signed.signature.key_id):
        return Trouble.FOREIGN, f"signed by {name}, which is not trusted"
    try:
        verified = verify(signed.envelope(), keys, payload_type=PAYLOAD_TYPE)
        time = moment(signed.entry.time)
    except ForgedEvidenceError:
        return Trouble.EDITED, f"the signature of {name} does not fit it"
    except EvidenceError as error:
        return Trouble.EDITED, error.message
    (key,) = verified.signers
    if not key.is_valid(time):
        return Trouble.FOREIGN, f"signed by {key.name}, which was not valid on {signed.entry.time}"
    environment = signed.entry.decided.binding.environment
    if not key.may_speak_of(environment):
        return Trouble.FOREIGN, f"signed by {key.name}, which does not speak of {environment}"
    return None


def _ordered(rows: list[_Row]) -> Iterator[Problem]:
    """What is wrong with the order of those lines that are entries.

    Lines that are none stand for at most one missing entry each: nothing is said twice of them.
    """
    everywhere = sorted({row.entry.sequence for row in rows if row.entry is not None})
    seen: set[int] = set()
    highest, strangers = 0, 0  # the highest sequence so far; lines since then that are no entries
    before: _Row | None = None
    for row in rows:
        if row.entry is None:
            strangers += 1
        else:
            sequence = row.entry.sequence
            between = max(0, sequence - highest - 1)
            elsewhere = max(0, bisect_left(everywhere, sequence) - bisect_right(everywhere, highest))
            if sequence in seen:
                yield Problem(Trouble.REPEATED, row.line, f"entry {sequence} stands in the ledger before")
            elif sequence < highest:
                yield Problem(Trouble.REORDERED, row.line, f"entry {sequence} stands after entry {highest}")
            elif between - elsewhere > strangers:
                told = f"{_gone(between - elsewhere)} between entry {highest} and entry {sequence}"
                yield Problem(Trouble.MISSING, row.line, told if highest else told.replace("entry 0", "the beginning"))
            elif elsewhere:
                yield Problem(Trouble.REORDERED, row.line, f"entry {sequence} stands before entry {highest + 1}")
            elif problem := _follows(row, before):
                yield problem
            if sequence > highest:
                highest, strangers = sequence, 0
            seen.add(sequence)
        before = row


def _follows(row: _Row, before: _Row | None) -> Problem | None:
    """Whether an entry names the line before it, which is an entry too and has the number before."""
    if row.entry is None or (before is not None and before.entry is None):
        return None
    if before is None or before.entry is None:
        if row.entry.sequence == 1 and row.entry.previous != GENESIS:
            return Problem(Trouble.MISSING, row.line, "entry 1 names an entry before it")
        return None
    if before.entry.sequence != row.entry.sequence - 1 or before.digest == row.entry.previous:
        return None
    told = f"entry {before.entry.sequence} is signed, and is not the one that entry {row.entry.sequence} was put after"
    return Problem(Trouble.REPLACED, before.line, told)


def _gone(count: int) -> str:
    return "1 entry is missing" if count == 1 else f"{count} entries are missing"


def _ending(content: Content, intent: Intent | None, lines: int) -> Problem | None:
    """What the last intent says of the end."""
    if intent is None:
        return None
    there = content[intent.offset : intent.offset + len(intent.line)]
    if there == intent.line or find_line(content, intent.line[:-1]) >= 0:  # elsewhere: what is before it has changed
        return None
    try:
        sequence = parse_line(intent.line.removesuffix(b"\n")).entry.sequence
    except EvidenceError:
        return Problem(Trouble.EDITED, 0, "what its last writer left beside it is not an entry")
    if len(content) < intent.offset:
        told = f"it is {intent.offset - len(content)} bytes shorter than when entry {sequence} was to be appended"
        return Problem(Trouble.TRUNCATED, 0, told)
    if intent.line.startswith(there):
        line = lines if there else lines + 1
        return Problem(Trouble.UNFINISHED, line, f"entry {sequence} is not whole; the next append finishes it")
    return Problem(Trouble.FORKED, 0, f"it does not go on with entry {sequence}, which was appended last")


def _anchored(anchor: Kept, rows: list[_Row], keys: TrustedKeys) -> int | Problem:
    """The sequence of what an anchor keeps where the ledger has the same; else what is wrong."""
    if anchor.line is None:
        return Problem(Trouble.UNANCHORED, 0, f"{anchor.where} keeps nothing yet")
    try:
        signed = parse_line(anchor.line)
    except EvidenceError as error:
        return Problem(Trouble.UNANCHORED, 0, f"what {anchor.where} keeps is {error.message}")
    if (trouble := _signer_trouble(signed, keys)) is not None:
        return Problem(Trouble.UNANCHORED, 0, f"what {anchor.where} keeps proves nothing: {trouble[1]}")
    sequence, digest = signed.entry.sequence, line_digest(anchor.line)
    if any(row.digest == digest for row in rows if row.entry is not None):
        return sequence
    highest = max((row.entry.sequence for row in rows if row.entry is not None), default=0)
    if sequence > highest:
        gone = sequence - highest
        told = f"{anchor.where} keeps entry {sequence}, and the ledger ends with {highest}: {gone} gone from the end"
        return Problem(Trouble.TRUNCATED, 0, told)
    return Problem(Trouble.FORKED, 0, f"{anchor.where} keeps another entry {sequence} than the ledger has")


def _notes(rows: Iterable[_Row]) -> Iterator[str]:
    entries = [row.entry for row in rows if row.entry is not None]
    for before, entry in pairwise(entries):
        if entry.sequence == before.sequence + 1 and entry.time < before.time:
            yield f"entry {entry.sequence} was entered on {entry.time}, before the one above it: a clock was set back"
