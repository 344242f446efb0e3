"""What is entered stays, once, in order; what is no ledger is refused and left as it is."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from quantguard.core.errors import EvidenceError, LedgerError
from quantguard.core.verdict import Verdict
from quantguard.evidence.ledger import append, read_last
from quantguard.evidence.ledger_entry import GENESIS, line_digest, parse_line
from quantguard.evidence.ledger_file import intent_path, opened_to_append
from quantguard.evidence.ledger_verify import verify_ledger
from tests.evidence.ledgers import KEYS, NOON, SIGNER, decided, enter, lines


def test_entries_are_lines_that_any_json_reader_reads(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number in (1, 2, 3):
        assert enter(path, number).new
    first, second, third = (json.loads(line) for line in path.read_text().splitlines())
    assert [each["entry"]["sequence"] for each in (first, second, third)] == [1, 2, 3]
    assert first["entry"]["previous"] == GENESIS
    assert second["entry"]["previous"] == line_digest(path.read_bytes().splitlines()[0])
    assert third["entry"]["decided"]["verdict"] == Verdict.BLOCK.value
    assert third["key"] == SIGNER.public.key_id


def test_a_decision_is_entered_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    entered = [enter(path, number) for number in (1, 2, 3)]
    before = path.read_bytes()
    for number in (2, 1, 3):
        again = enter(path, number)
        assert not again.new
        assert again.line == entered[number - 1].line
    assert path.read_bytes() == before


def test_a_name_that_looks_like_a_decision_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    wanted = decided(7).decision
    for number, name in enumerate((wanted, f'"decision":"{wanted}"', f'\\","decision":"{wanted}'), start=1):
        enter(path, number, name=name)
    assert enter(path, 7).new
    assert verify_ledger(path, KEYS).problems == ()


def test_a_name_in_any_script_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    name = "модель\u2028\n\x00\U0001f9ff"
    enter(path, 1, name=name)
    assert len(path.read_bytes().splitlines()) == 1
    assert parse_line(path.read_bytes()[:-1]).entry.decided.binding.identity.name == name


@pytest.mark.parametrize("name", ["x" * 70_000, "\ud800"], ids=["too long", "no text"])
def test_what_could_not_be_read_back_is_not_entered(name: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    enter(path, 1)
    before = path.read_bytes()
    with pytest.raises(EvidenceError):
        enter(path, 2, name=name)
    assert path.read_bytes() == before


def test_the_last_line_is_what_an_anchor_keeps(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.touch()
    assert read_last(path) is None
    assert enter(path, 1).line == read_last(path)


@pytest.mark.parametrize("content", [b"\n", b"{}\n", b"x" * 200_000, b"\0" * 100], ids=repr)
def test_what_is_no_ledger_is_not_continued(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        enter(path, 1)
    assert path.read_bytes() == content


def test_a_ledger_that_lost_what_was_anchored_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    whole = lines(4)
    for content in (b"".join(whole[:3]), b"".join(whole[:1])):
        path.write_bytes(content)
        with pytest.raises(LedgerError, match="entry 4 was anchored, and is not in it") as raised:
            append(path, decided(9), SIGNER, now=NOON, anchors=(whole[0][:-1], whole[3][:-1]))
        assert "quantguard ledger verify" in raised.value.remedy
        assert path.read_bytes() == content
    path.write_bytes(b"".join(whole))
    assert append(path, decided(9), SIGNER, now=NOON, anchors=(whole[0][:-1], whole[3][:-1])).new


@pytest.mark.parametrize("kind", ["directory", "symlink", "dangling", "fifo", "device", "no directory", "below a file"])
def test_what_is_no_ordinary_file_is_refused(kind: str, tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.jsonl", tmp_path / "other"
    match kind:
        case "directory":
            path.mkdir()
        case "symlink":
            other.write_bytes(b"")
            path.symlink_to(other)
        case "dangling":
            path.symlink_to(other)
        case "fifo":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/null")
        case "no directory":
            path = tmp_path / "not mounted" / "ledger.jsonl"
        case _:
            other.write_bytes(b"")
            path = other / "ledger.jsonl"
    with pytest.raises(EvidenceError) as raised:
        enter(path, 1)
    assert raised.value.path == path
    assert raised.value.remedy
    assert not other.exists() or other.read_bytes() == b""
    assert not (tmp_path / "not mounted").exists()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_lies_beside_it_is_no_ordinary_file(kind: str, tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.jsonl", tmp_path / "other"
    other.write_bytes(b"precious")
    beside = intent_path(path)
    if kind == "symlink":
        beside.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(beside)
    else:
        beside.mkdir()
    with pytest.raises(EvidenceError):
        enter(path, 1)
    assert other.read_bytes() == b"precious"
    assert path.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root may write everywhere")
def test_a_ledger_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    enter(path, 1)
    path.chmod(0o444)
    tmp_path.chmod(0o755)
    code = (
        "from tests.evidence.ledgers import enter\nimport pathlib, sys\n"
        "try: enter(pathlib.Path(sys.argv[1]), 2)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", code, str(path)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", *command]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("EvidenceError"), ran.stderr
    assert "let this user write it" in ran.stdout


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write ends in the middle of the line."""
    path = tmp_path / "ledger.jsonl"
    for number in (1, 2, 3):
        enter(path, number)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 1, 300):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
        try:
            with pytest.raises(EvidenceError, match="cannot be used as a ledger: File too large"):
                enter(path, 4)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == before
    assert verify_ledger(path, KEYS).problems == ()
    done = enter(path, 5)  # and what failed is not finished behind its back
    assert (done.finished, done.entry.sequence) == (0, 4)


def test_a_ledger_that_is_moved_away_while_a_writer_waits_is_not_written(tmp_path: Path) -> None:
    path, moved = tmp_path / "ledger.jsonl", tmp_path / "moved.jsonl"
    enter(path, 1)
    with opened_to_append(path):
        waiting = threading.Thread(target=enter, args=(path, 2))
        waiting.start()
        path.rename(moved)
        intent_path(path).unlink()
    waiting.join()
    assert len(moved.read_bytes().splitlines()) == 1
    assert parse_line(path.read_bytes()[:-1]).entry.decided == decided(2)
