"""Writers that are killed lose nothing that they were told is entered, and repeat nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quantguard.core.errors import LedgerError
from quantguard.evidence.ledger import append, finish
from quantguard.evidence.ledger_file import Intent, intent_path, read_intent, write_intent
from quantguard.evidence.ledger_verify import verify_ledger
from tests.evidence.ledgers import KEYS, NOON, SIGNER, decided, enter, lines


@pytest.mark.parametrize(
    ("each", "kills"), [(25, 60), pytest.param(200, 600, marks=pytest.mark.slow)], ids=["8 x 25", "8 x 200"]
)
def test_eight_writers_lose_nothing_and_repeat_nothing(each: int, kills: int, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch(mode=0o600)
    key.write_bytes(SIGNER.private_pem())
    command = [sys.executable, "-m", "tests.evidence.ledger_soak", str(tmp_path / "ledger.jsonl"), "--key", str(key)]
    ran = subprocess.run(
        [*command, "--each", str(each), "--kills", str(kills)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["entries"] == found["wanted"] == 8 * each
    assert (found["absent"], found["repeated"], found["told and lost"], found["problems"]) == (0, 0, 0, [])
    assert found["killed"] > kills / 3  # otherwise it says nothing


def killed(path: Path, count: int, *, after: int) -> bytes:
    """A ledger of `count` entries whose last writer died after so many bytes of its line; what it was writing."""
    whole = lines(count)
    before = b"".join(whole[:-1])
    path.write_bytes(before + whole[-1][:after])
    write_intent(path, Intent(len(before), whole[-1]))
    return whole[-1]


@pytest.mark.parametrize("count", [1, 3])
def test_an_append_is_finished_wherever_its_writer_died(count: int, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    length = len(lines(count)[-1])
    for after in (0, 1, 2, *range(50, length - 2, 97), length - 2, length - 1):
        killed(path, count, after=after)
        done = enter(path, count + 1)
        assert (done.finished, done.entry.sequence) == (count, count + 1), after
        assert path.read_bytes().splitlines(keepends=True)[:-1] == list(lines(count))
    assert verify_ledger(path, KEYS).problems == ()


def test_a_rerun_of_the_writer_that_died_enters_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    killed(path, 3, after=100)
    done = enter(path, 3)
    assert (done.new, done.finished) == (False, 3)
    assert path.read_bytes() == b"".join(lines(3))


def test_finishing_alone_makes_a_ledger_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    killed(path, 3, after=100)
    assert verify_ledger(path, KEYS).problems[0].message == "entry 3 is not whole; the next append finishes it"
    assert (finish(path), finish(path)) == (3, 0)
    assert path.read_bytes() == b"".join(lines(3))


def test_an_intent_that_was_not_written_whole_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number in (1, 2):
        enter(path, number)
    whole = intent_path(path).read_bytes()
    for size in (0, 1, 64, 65, 70, len(whole) - 1):
        intent_path(path).write_bytes(whole[:size])
        assert read_intent(path) is None
    assert enter(path, 3).entry.sequence == 3


@pytest.mark.parametrize("size", [1, 100, -1])
def test_a_ledger_that_was_cut_is_not_continued(size: int, tmp_path: Path) -> None:
    """Whoever cuts it can cut what lies beside it too; then half a line stays that nobody was writing."""
    path = tmp_path / "ledger.jsonl"
    for intent in (True, False):
        intent_path(path).unlink(missing_ok=True)
        path.write_bytes(b"")
        for number in (1, 2, 3):
            enter(path, number)
        first, second, third = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(first + second[:size])
        if not intent:
            intent_path(path).unlink()
        before = path.read_bytes()
        with pytest.raises(LedgerError, match="shorter than" if intent else "in the middle of a line"):
            enter(path, 4)
        assert path.read_bytes() == before
        assert third not in before


def test_what_was_cut_off_whole_comes_back(tmp_path: Path) -> None:
    """The last entry alone, cut off, looks like a writer that died; either way it is in the ledger afterwards."""
    path = tmp_path / "ledger.jsonl"
    for number in (1, 2, 3):
        enter(path, number)
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert enter(path, 4).finished == 3
    assert path.read_bytes().startswith(whole)


def test_an_intent_for_another_place_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number in (1, 2, 3):
        enter(path, number)
    content = path.read_bytes()
    for line in (lines(2)[1], lines(4)[3][:-1] + b"x\n"):
        write_intent(path, Intent(len(content), line))
        with pytest.raises(LedgerError, match=r"does not go on with entry 2|is not an entry of a ledger"):
            append(path, decided(4), SIGNER, now=NOON)
        assert path.read_bytes() == content
