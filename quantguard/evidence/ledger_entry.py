"""One entry of the ledger, and the line of text that it is.

    {"entry":{...},"key":"KEY ID","schema":"quantguard.ledger/1","signature":"BASE64"}

A line is canonical JSON, so that one entry has one spelling and a changed space is a changed entry. The signature is
that of a DSSE envelope whose payload is the canonical JSON of `entry`, which names the SHA-256 of the line before it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final

from pydantic import TypeAdapter, ValidationError

from quantguard.core.attestation import Binding
from quantguard.core.errors import EvidenceError
from quantguard.core.verdict import Verdict
from quantguard.evidence.dsse import Envelope, Signature
from quantguard.evidence.records import canonical_json, digest_bytes

SCHEMA: Final = "quantguard.ledger/1"
PAYLOAD_TYPE: Final = "application/vnd.quantguard.ledger-entry+json"
GENESIS: Final = "sha256:" + "0" * 64  # what the first entry names as the line before it
MOST_BYTES: Final = 65_536  # of one line; an entry has some 1,200


class Kind(Enum):
    """What an entry tells of."""

    DECISION = "decision"


@dataclass(frozen=True, slots=True)
class Decided:
    """What is entered."""

    binding: Binding
    verdict: Verdict
    policy: str  # its name
    policy_digest: str  # sha256:HEX
    decision: str  # sha256:HEX of the signed decision, by which a rerun is recognised
    kind: Kind = Kind.DECISION


@dataclass(frozen=True, slots=True)
class Entry:
    sequence: int  # 1 and up, by one
    previous: str  # sha256:HEX of the line before, without its line feed; GENESIS for the first
    time: str  # when it was entered, UTC, as 2026-11-27T20:00:00Z
    decided: Decided


@dataclass(frozen=True, slots=True)
class Signed:
    """An entry as it stands in a file. That its signature fits is not said here."""

    entry: Entry
    signature: Signature

    def envelope(self) -> Envelope:
        """The DSSE envelope that the line stands for."""
        return Envelope(PAYLOAD_TYPE, payload_of(self.entry), (self.signature,))

    def line(self) -> bytes:
        """The line, without its line feed."""
        told = base64.b64encode(self.signature.value).decode("ascii")
        entry = plain_entry(self.entry)
        return canonical_json({"entry": entry, "key": self.signature.key_id, "schema": SCHEMA, "signature": told})


def payload_of(entry: Entry) -> bytes:
    """What is signed of an entry."""
    return canonical_json(plain_entry(entry))


def line_digest(line: bytes) -> str:
    """`sha256:HEX` of a line without its line feed: what the next entry names, and the head of a ledger ending here."""
    return digest_bytes(line)


def parse_line(line: bytes) -> Signed:
    """The entry that a line (without its line feed) is.

    Raises:
        EvidenceError: it is none, or not as an entry is spelled.
    """
    try:
        document = json.loads(line)
        entry = _adapter().validate_json(canonical_json(document["entry"]))
        signed = Signed(entry, Signature(document["key"], base64.b64decode(document["signature"])))
        same = signed.line() == line and entry.sequence > 0
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise EvidenceError("not an entry of a ledger") from error
    if not same:
        raise EvidenceError("not spelled as an entry of a ledger is")
    return signed


def plain_entry(entry: Entry) -> object:
    """The entry as JSON types."""
    return _adapter().dump_python(entry, mode="json")


@cache  # it takes longer to make than a thousand entries to read
def _adapter() -> TypeAdapter[Entry]:
    return TypeAdapter(Entry)
