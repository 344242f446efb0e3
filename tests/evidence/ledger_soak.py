"""Several writers of one ledger, killed at random and started again until each has entered all of its decisions.

    python -m tests.evidence.ledger_soak /tmp/ledger.jsonl --writers 8 --each 200 --kills 400

Every writer notes, in a file of its own, what `append` has told it is entered. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from quantguard.evidence.keys import read_signer
from quantguard.evidence.ledger import append
from quantguard.evidence.ledger_entry import line_digest, parse_line
from quantguard.evidence.ledger_verify import verify_ledger
from quantguard.evidence.trusted import TrustedKeys
from tests.evidence.ledgers import NOON, decided


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--each", type=int, default=25, help="decisions of each writer")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    began = time.monotonic()
    killed = _run(told)
    sys.stdout.write(json.dumps(_found(told, killed, time.monotonic() - began)) + "\n")
    return 0


def _run(told: argparse.Namespace) -> int:
    """Until every writer has come to its end; how often one was killed."""
    chance, killed = random.Random(told.seed), 0
    living = {_start(told, number): number for number in range(told.writers)}
    while living:
        time.sleep(chance.uniform(0.0, 0.02))
        while living and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            number = living.pop(ended[0])
            if ended[1] != 0:
                living[_start(told, number)] = number
        if living and killed < told.kills:
            os.kill(chance.choice(list(living)), signal.SIGKILL)
            killed += 1
    return killed


def _start(told: argparse.Namespace, number: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _write(told, number)
    except BaseException as error:  # noqa: BLE001  a child must not go on as its parent
        sys.stderr.write(f"writer {number}: {error!r}\n")
        os._exit(1)
    os._exit(0)


def _write(told: argparse.Namespace, number: int) -> None:
    signer = read_signer(told.key)
    with _notes(told.ledger, number).open("ab", buffering=0) as notes:
        for decision in range(number * told.each + 1, (number + 1) * told.each + 1):
            done = append(told.ledger, decided(decision), signer, now=NOON)
            notes.write(f"{line_digest(done.line)} {int(done.new)} {done.finished}\n".encode())


def _notes(ledger: Path, number: int) -> Path:
    return ledger.with_name(f"told-{number}")


def _found(told: argparse.Namespace, killed: int, seconds: float) -> dict[str, object]:
    lines = told.ledger.read_bytes().splitlines()
    notes = [line.split() for n in range(told.writers) for line in _notes(told.ledger, n).read_text().splitlines()]
    digests = {line_digest(line) for line in lines}
    decisions = Counter(parse_line(line).entry.decided.decision for line in lines)
    wanted = {decided(number).decision for number in range(1, told.writers * told.each + 1)}
    verified = verify_ledger(told.ledger, TrustedKeys.of(read_signer(told.key).public))
    return {
        "entries": len(lines),
        "wanted": len(wanted),
        "absent": len(wanted - decisions.keys()),
        "repeated": sum(count > 1 for count in decisions.values()),
        "told and lost": sum(note[0] not in digests for note in notes),
        "killed": killed,
        "finished for another": sum(note[2] != "0" for note in notes),
        "problems": [problem.message for problem in verified.problems],
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
