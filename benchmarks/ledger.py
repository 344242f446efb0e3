"""How long an entry of the ledger takes beside appending the same bytes to a file and syncing it; how long verifying.

    python benchmarks/ledger.py                         # 1,000 appends in turn, 100,000 entries verified
    python benchmarks/ledger.py --directory /mnt/disk   # on the disk that will hold it

The plain append opens the file, writes one line of an entry's length and calls fsync, once an entry. Both are run in
alternating blocks in one process. The ledger that is verified is made without syncing, and is otherwise as any.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from quantguard.core.attestation import Binding, timestamp
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Verdict
from quantguard.evidence.dsse import sign
from quantguard.evidence.keys import Signer
from quantguard.evidence.ledger import append
from quantguard.evidence.ledger_entry import (
    GENESIS,
    PAYLOAD_TYPE,
    Decided,
    Entry,
    Signed,
    line_digest,
    payload_of,
)
from quantguard.evidence.ledger_verify import verify_ledger
from quantguard.evidence.records import digest_of
from quantguard.evidence.trusted import TrustedKeys

_BLOCK = 50
_NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--appends", type=int, default=1000)
    parser.add_argument("--entries", type=int, default=100_000, help="of the ledger that is verified")
    parser.add_argument("--directory", type=Path, help="where the files are written; default: the temporary one")
    told = parser.parse_args()
    signer = Signer.generate()
    with tempfile.TemporaryDirectory(dir=told.directory) as scratch:
        _appends(Path(scratch), signer, told.appends)
        _long(Path(scratch), signer, told.entries)
    return 0


def _appends(scratch: Path, signer: Signer, count: int) -> None:
    """Appends in alternating blocks, to an empty ledger and a plain file."""
    ledger, plain = scratch / "ledger.jsonl", scratch / "plain"
    line = append(scratch / "other.jsonl", _decided(0), signer, now=_NOW).line + b"\n"
    ours: list[float] = []
    theirs: list[float] = []
    for start in range(0, count, _BLOCK):
        for number in range(start, start + _BLOCK):
            began = time.perf_counter()
            append(ledger, _decided(number), signer, now=_NOW)
            ours.append(time.perf_counter() - began)
        for _ in range(_BLOCK):
            began = time.perf_counter()
            _plain_append(plain, line)
            theirs.append(time.perf_counter() - began)
    _tell(f"append to a ledger of up to {count}", statistics.median(ours), statistics.median(theirs))


def _plain_append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, line)
    os.fsync(descriptor)
    os.close(descriptor)


def _long(scratch: Path, signer: Signer, count: int) -> None:
    """A long ledger: verified, appended to, and asked for what it has."""
    path = scratch / "long.jsonl"
    previous = GENESIS
    with path.open("wb") as stream:
        for number in range(1, count + 1):
            entry = Entry(number, previous, timestamp(_NOW), _decided(number))
            line = Signed(entry, sign(PAYLOAD_TYPE, payload_of(entry), signer).signatures[0]).line()
            previous = line_digest(line)
            stream.write(line + b"\n")
    began, worked = time.perf_counter(), time.process_time()
    found = verify_ledger(path, TrustedKeys.of(signer.public))
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    if found.problems or found.entries != count:
        raise SystemExit(f"not whole: {found.problems[:3]}")
    size = path.stat().st_size / 1e6
    rate = f"{seconds:.1f} s, {worked:.1f} s of one core: {count / worked:.0f} a second of it"
    sys.stdout.write(f"verify {count} entries ({size:.0f} MB): {rate}\n")
    new = [_timed(path, signer, count + number) for number in range(1, 21)]
    again = [_timed(path, signer, number) for number in range(1, count, max(1, count // 20))]
    sys.stdout.write(f"append to {count}: {1e3 * statistics.median(new):.1f} ms\n")
    sys.stdout.write(f"find a decision that is there: {1e3 * statistics.median(again):.1f} ms\n")


def _timed(path: Path, signer: Signer, number: int) -> float:
    began = time.perf_counter()
    append(path, _decided(number), signer, now=_NOW)
    return time.perf_counter() - began


def _tell(what: str, ours: float, theirs: float) -> None:
    sys.stdout.write(
        f"{what}: {1e3 * ours:.2f} ms ({1 / ours:.0f} a second); plain append and fsync {1e3 * theirs:.2f} ms: "
        f"{ours / theirs:.1f} times\n"
    )


def _decided(number: int) -> Decided:
    identity = VersionIdentity("assistant", str(number), f"models:/m-{number:032x}", 1_700_000_000_000 + number)
    binding = Binding(identity, digest_of(number), "production")
    return Decided(binding, Verdict.PROMOTE, "standard", digest_of("policy"), digest_of(["decision", number]))


if __name__ == "__main__":
    sys.exit(main())
