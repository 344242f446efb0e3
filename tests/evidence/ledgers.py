"""Ledgers of small, made-up decisions."""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from quantguard.core.attestation import Binding
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Verdict
from quantguard.evidence.keys import Signer
from quantguard.evidence.ledger import Appended, append
from quantguard.evidence.ledger_entry import Decided
from quantguard.evidence.trusted import TrustedKeys

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
SIGNER = Signer.generate()
STRANGER = Signer.generate()
KEYS = TrustedKeys.of(SIGNER.public)


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def decided(number: int, *, name: str = "assistant", environment: str = "production") -> Decided:
    """The decision of that number."""
    identity = VersionIdentity(name, str(number), f"models:/m-{number}", 1_700_000_000_000 + number)
    verdict = Verdict.BLOCK if number % 3 == 0 else Verdict.PROMOTE
    binding = Binding(identity, digest(f"bytes {number}"), environment)
    return Decided(binding, verdict, "standard", digest("policy"), digest(f"decision {name} {number}"))


def enter(path: Path, number: int, signer: Signer = SIGNER, **told: str) -> Appended:
    """Append decision `number`, made that many minutes after noon."""
    return append(path, decided(number, **told), signer, now=NOON + timedelta(minutes=number))


@cache
def lines(count: int) -> tuple[bytes, ...]:
    """The lines, with their line feeds, of a ledger of so many entries."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.jsonl"
        for number in range(1, count + 1):
            enter(path, number)
        return tuple(path.read_bytes().splitlines(keepends=True))
