"""Whatever is done to a ledger is noticed, and named for what it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.core.errors import EvidenceError
from quantguard.evidence.keys import Signer
from quantguard.evidence.ledger_entry import GENESIS, line_digest
from quantguard.evidence.ledger_file import intent_path
from quantguard.evidence.ledger_verify import Kept, Problem, Trouble, Verification, verify_ledger
from quantguard.evidence.trusted import TrustedKey, TrustedKeys
from tests.evidence.ledgers import KEYS, NOON, SIGNER, STRANGER, enter, lines

COUNT = 6
NUMBERS = st.integers(1, COUNT)


def verified(content: Sequence[bytes], *anchors: bytes | None, keys: TrustedKeys = KEYS) -> Verification:
    """What is said of a file with this content, without what its last writer left beside it."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.jsonl"
        path.write_bytes(b"".join(content))
        return verify_ledger(path, keys, tuple(Kept("file:anchor", anchor) for anchor in anchors))


def troubles(found: Verification) -> set[tuple[Trouble, int]]:
    return {(problem.trouble, problem.line) for problem in found.problems}


def whole() -> list[bytes]:
    return list(lines(COUNT))


def test_what_was_written_is_whole() -> None:
    found = verified(whole(), whole()[-1][:-1], whole()[2][:-1])
    assert (found.problems, found.notes) == ((), ())
    assert (found.entries, found.head) == (COUNT, line_digest(whole()[-1][:-1]))
    assert found.anchored == (("file:anchor", COUNT), ("file:anchor", 3))


def test_an_empty_ledger_is_whole_and_has_no_head() -> None:
    found = verified([])
    assert (found.entries, found.head, found.problems) == (0, GENESIS, ())


@given(st.integers(0, sum(map(len, lines(COUNT))) - 1))
@settings(max_examples=200, deadline=None)
def test_every_truncation_is_named(size: int) -> None:
    content = b"".join(whole())[:size]
    found = verified([content], whole()[-1][:-1])
    left = content.count(b"\n")
    assert (Trouble.TRUNCATED, 0) in troubles(found)
    assert ((Trouble.CUT, left + 1) in troubles(found)) is (not content.endswith(b"\n") and size > 0)
    assert f"{COUNT - left} gone from the end" in found.problems[-1].message


def test_without_an_anchor_a_ledger_cut_between_entries_looks_whole() -> None:
    """Which is why there are anchors: the signed rest is what was written, as far as it goes."""
    assert verified(whole()[:-1]).problems == ()


@given(st.lists(NUMBERS, min_size=2, max_size=2, unique=True))
@settings(deadline=None)
def test_every_swap_of_two_is_named(pair: list[int]) -> None:
    content = whole()
    one, other = sorted(pair)
    content[one - 1], content[other - 1] = content[other - 1], content[one - 1]
    found = verified(content, whole()[-1][:-1])
    assert {problem.trouble for problem in found.problems} == {Trouble.REORDERED}
    assert min(problem.line for problem in found.problems) == one


@given(NUMBERS, st.data())
@settings(max_examples=300, deadline=None)
def test_every_edit_of_a_byte_is_named(number: int, data: st.DataObject) -> None:
    content = whole()
    line = bytearray(content[number - 1])
    at = data.draw(st.integers(0, len(line) - 1), label="at")
    line[at] ^= data.draw(st.integers(1, 255), label="change")
    content[number - 1] = bytes(line)
    found = verified(content)
    lines_named = {problem.line for problem in found.problems}
    kinds = {problem.trouble for problem in found.problems}
    assert number in lines_named
    assert kinds & {Trouble.EDITED, Trouble.FOREIGN, Trouble.CUT}
    # Nothing is said of entries that nobody touched, unless the edit made two lines of one or one of two.
    if line.count(b"\n") == 1 and line.endswith(b"\n"):
        assert lines_named == {number}


@given(NUMBERS, NUMBERS)
@settings(deadline=None)
def test_every_deletion_is_named(first: int, count: int) -> None:
    content = whole()
    gone = content[first - 1 : first - 1 + count]
    del content[first - 1 : first - 1 + count]
    found = verified(content, whole()[-1][:-1])
    expected = (Trouble.MISSING, first) if first + len(gone) <= COUNT else (Trouble.TRUNCATED, 0)
    assert troubles(found) == {expected}
    assert f"{len(gone)} " in found.problems[0].message


@given(NUMBERS, st.integers(0, COUNT))
@settings(deadline=None)
def test_every_repetition_is_named(number: int, at: int) -> None:
    content = whole()
    content.insert(at, content[number - 1])
    found = verified(content)
    assert {problem.trouble for problem in found.problems} <= {Trouble.REPEATED, Trouble.REORDERED}
    assert found.problems


@given(st.permutations(range(COUNT)), st.integers(0, COUNT))
@settings(deadline=None)
def test_no_other_choice_of_the_same_lines_is_whole(order: list[int], keep: int) -> None:
    content = [whole()[at] for at in order[:keep]]
    assert bool(verified(content).problems) is (order[:keep] != list(range(keep)))


@given(st.binary(max_size=300), st.integers(0, COUNT))
@settings(deadline=None)
def test_a_line_that_nobody_signed_is_named(text: bytes, at: int) -> None:
    content = whole()
    content.insert(at, text.replace(b"\n", b"") + b"\n")
    assert troubles(verified(content)) == {(Trouble.EDITED, at + 1)}


@pytest.mark.parametrize("number", [1, 3, COUNT])
def test_a_foreign_signer_is_named(number: int, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for each in range(1, COUNT + 1):
        enter(path, each, STRANGER if each == number else SIGNER)
    found = verify_ledger(path, KEYS)
    assert troubles(found) == {(Trouble.FOREIGN, number)}
    assert STRANGER.public.key_id[:16] in found.problems[0].message
    assert verify_ledger(path, TrustedKeys.of(SIGNER.public, STRANGER.public)).problems == ()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"not_after": NOON + timedelta(minutes=3)}, "was not valid on 2026-11-27T12:03:00Z"),
        ({"not_before": NOON + timedelta(minutes=2)}, "was not valid on 2026-11-27T12:01:00Z"),
        ({"environments": ("staging",)}, "does not speak of production"),
    ],
    ids=["expired", "too early", "environment"],
)
def test_a_key_that_had_no_say_is_a_foreign_signer(limits: dict[str, object], said: str) -> None:
    keys = TrustedKeys((TrustedKey("gate", SIGNER.public, **limits),))  # type: ignore[arg-type]
    found = verified(whole(), keys=keys)
    assert {problem.trouble for problem in found.problems} == {Trouble.FOREIGN}
    assert said in found.problems[0].message


def rewritten(tmp_path: Path, signer: Signer, *, of: int) -> list[bytes]:
    """A ledger that goes on differently from entry `of` on, by somebody who has the key."""
    path = tmp_path / "other.jsonl"
    path.write_bytes(b"".join(whole()[: of - 1]))
    for number in range(of, COUNT + 1):
        enter(path, number + 100, signer)
    return path.read_bytes().splitlines(keepends=True)


def test_an_entry_that_was_signed_again_is_replaced(tmp_path: Path) -> None:
    content = whole()
    content[2] = rewritten(tmp_path, SIGNER, of=3)[2]
    assert troubles(verified(content)) == {(Trouble.REPLACED, 3)}


def test_a_rewritten_end_is_a_fork_of_what_was_anchored(tmp_path: Path) -> None:
    forged = rewritten(tmp_path, SIGNER, of=3)
    assert verified(forged).problems == ()  # whoever has the key can do this: only an anchor knows
    found = verified(forged, whole()[3][:-1], whole()[1][:-1])
    assert troubles(found) == {(Trouble.FORKED, 0)}
    assert found.anchored == (("file:anchor", 2),)


@pytest.mark.parametrize("kept", [None, b"", b"{}", lines(1)[0][:-2], b"\xff" * 10])
def test_an_anchor_that_keeps_no_entry_proves_nothing(kept: bytes | None) -> None:
    found = verified(whole(), kept)
    assert troubles(found) == {(Trouble.UNANCHORED, 0)}
    assert not found.harmed


def test_an_anchor_that_a_stranger_signed_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number in range(1, 20):
        enter(path, number, STRANGER)
    found = verified(whole(), path.read_bytes().splitlines()[-1])
    assert troubles(found) == {(Trouble.UNANCHORED, 0)}


def test_a_ledger_that_is_gone_is_missed_by_its_anchor(tmp_path: Path) -> None:
    found = verify_ledger(tmp_path / "ledger.jsonl", KEYS, (Kept("file:anchor", whole()[-1][:-1]),))
    assert troubles(found) == {(Trouble.TRUNCATED, 0)}
    with pytest.raises(EvidenceError, match="there is no such ledger"):
        verify_ledger(tmp_path / "ledger.jsonl", KEYS)


def test_a_ledger_is_missed_by_what_its_last_writer_left(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number in (1, 2, 3):
        enter(path, number)
    content = path.read_bytes()
    for size in (0, 1, *range(10, len(content), 41), len(content) - 1):
        path.write_bytes(content[:size])
        found = verify_ledger(path, KEYS)
        finishes = size >= len(content) - len(content.splitlines(keepends=True)[-1])
        # The last entry may have been cut off or never written: the next append writes it, whichever it was.
        expected = Trouble.UNFINISHED if finishes else Trouble.TRUNCATED
        assert expected in {problem.trouble for problem in found.problems}, size
        assert found.harmed is not finishes
    path.unlink()
    assert Trouble.TRUNCATED in {problem.trouble for problem in verify_ledger(path, KEYS).problems}


def test_another_end_than_the_last_writer_left_is_a_fork(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number in (1, 2):
        enter(path, number)
    kept = intent_path(path).read_bytes()
    path.write_bytes(whole()[0])
    intent_path(path).unlink()
    enter(path, 5)
    intent_path(path).write_bytes(kept)
    assert {problem.trouble for problem in verify_ledger(path, KEYS).problems} == {Trouble.FORKED}


def test_a_clock_that_was_set_back_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for number in (2, 1):
        enter(path, number)
    found = verify_ledger(path, KEYS)
    assert found.problems == ()
    assert "a clock was set back" in found.notes[0]


def test_a_number_beyond_all_bounds_costs_no_time(tmp_path: Path) -> None:
    """Only somebody with the key can write it, and even then nothing counts up to it."""
    from quantguard.evidence.dsse import sign
    from quantguard.evidence.ledger_entry import PAYLOAD_TYPE, Entry, Signed, payload_of
    from tests.evidence.ledgers import decided

    entry = Entry(10**30, GENESIS, "2026-11-27T12:00:00Z", decided(1))
    line = Signed(entry, sign(PAYLOAD_TYPE, payload_of(entry), SIGNER).signatures[0]).line()
    found = verified([line + b"\n"])
    assert found.problems == (
        Problem(Trouble.MISSING, 1, f"{10**30 - 1} entries are missing between the beginning and entry {10**30}"),
    )
