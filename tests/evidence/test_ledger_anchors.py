"""An anchor follows its ledger, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from quantguard.core.errors import CheckoutError, EvidenceError, LedgerError, QuantGuardError, UsageError
from quantguard.evidence.ledger_anchors import Anchor, FileAnchor, Ledger, open_file_or_git, parse_anchor
from quantguard.evidence.ledger_file import intent_path
from quantguard.evidence.ledger_git import REF, GitAnchor
from quantguard.evidence.ledger_verify import Trouble, verify_ledger
from tests.evidence.ledgers import KEYS, NOON, SIGNER, decided, enter, lines


def git(repository: Path, *arguments: str) -> str:
    ran = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


@pytest.fixture(params=["file", "checkout", "bare"])
def anchor(request: pytest.FixtureRequest, tmp_path: Path) -> Anchor:
    if request.param == "file":
        return FileAnchor(tmp_path / "anchor.json")
    bare = ["--bare"] if request.param == "bare" else []
    subprocess.run(["git", "init", "--quiet", *bare, str(tmp_path / "repository")], check=True)
    return GitAnchor(tmp_path / "repository", os.environ)


def test_an_anchor_keeps_the_last_entry(anchor: Anchor, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", (anchor,))
    assert anchor.read() is None
    for number in (1, 2, 3):
        done, events = ledger.enter(decided(number), SIGNER, now=NOON)
        assert anchor.read() == done.line
        assert events == (
            f"entry {number} of the ledger ledger.jsonl made",
            f"entry {number} anchored in {anchor.where}" + (", which kept nothing before" if number == 1 else ""),
        )
    assert verify_ledger(ledger.path, KEYS, ledger.kept()).anchored == ((anchor.where, 3),)


def test_a_rerun_completes_what_is_missing_and_repeats_nothing(anchor: Anchor, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    enter(path, 1)  # killed before it was anchored
    ledger = Ledger(path, (anchor,))
    for told in (f"entry 1 anchored in {anchor.where}, which kept nothing before",), ():
        assert ledger.enter(decided(1), SIGNER, now=NOON)[1] == ("entry 1 of the ledger ledger.jsonl was there", *told)
    assert len(path.read_bytes().splitlines()) == 1


def test_a_ledger_that_was_cut_neither_grows_nor_moves_its_anchor(anchor: Anchor, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, (anchor,))
    for number in (1, 2, 3):
        ledger.enter(decided(number), SIGNER, now=NOON)
    kept = anchor.read()
    cut = b"".join(path.read_bytes().splitlines(keepends=True)[:2])
    path.write_bytes(cut)
    intent_path(path).unlink()
    for move in (ledger.anchor, lambda: ledger.enter(decided(4), SIGNER, now=NOON)):
        with pytest.raises(LedgerError, match="entry 3 was anchored, and is not in it"):
            move()
    assert (anchor.read(), path.read_bytes()) == (kept, cut)
    (problem,) = verify_ledger(path, KEYS, ledger.kept()).problems
    assert problem.trouble is Trouble.TRUNCATED
    assert problem.message == f"{anchor.where} keeps entry 3, and the ledger ends with 2: 1 gone from the end"


def test_a_rewritten_ledger_does_not_move_its_anchor(anchor: Anchor, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, (anchor,))
    for number in (1, 2):
        ledger.enter(decided(number), SIGNER, now=NOON)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    intent_path(path).unlink()
    for number in (7, 8):  # by somebody who has the key
        enter(path, number)
    with pytest.raises(LedgerError):
        ledger.anchor()
    assert [problem.trouble for problem in verify_ledger(path, KEYS, ledger.kept()).problems] == [Trouble.FORKED]


def test_of_two_that_move_an_anchor_one_does(anchor: Anchor) -> None:
    first, second, third = (line[:-1] for line in lines(3))
    assert anchor.move(first, None)
    assert not anchor.move(second, None)
    assert anchor.move(second, first)
    assert not anchor.move(third, first)
    assert anchor.read() == second


def test_git_keeps_every_head_and_moves_no_branch(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "repository")], check=True)
    ledger = Ledger(tmp_path / "ledger.jsonl", (GitAnchor(tmp_path / "repository", os.environ),))
    for number in (1, 2, 3):
        ledger.enter(decided(number), SIGNER, now=NOON)
    told = git(tmp_path / "repository", "log", "--format=%s %cI", REF).splitlines()
    assert told == [
        f"Ledger: entry {n}, {v} 2026-11-27T12:00:00+00:00" for n, v in ((3, "BLOCK"), (2, "PROMOTE"), (1, "PROMOTE"))
    ]
    assert git(tmp_path / "repository", "for-each-ref", "--format=%(refname)") == REF
    assert git(tmp_path / "repository", "status", "--porcelain") == ""


def test_a_repository_runs_nothing(tmp_path: Path) -> None:
    repository, ran = tmp_path / "repository", tmp_path / "ran"
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    script = repository / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n", encoding="utf-8")
    script.chmod(0o755)
    for hook in ("reference-transaction", "post-commit", "pre-commit"):
        (repository / ".git/hooks" / hook).symlink_to(script)
    for key in ("core.fsmonitor", "filter.evil.clean", "gpg.program", "core.pager", "core.sshCommand"):
        git(repository, "config", key, str(script))
    git(repository, "config", "commit.gpgSign", "true")
    (repository / ".git/info/attributes").write_text("* filter=evil\n", encoding="utf-8")
    ledger = Ledger(tmp_path / "ledger.jsonl", (GitAnchor(repository, {**os.environ, "GIT_DIR": "/nowhere"}),))
    for number in (1, 2):
        ledger.enter(decided(number), SIGNER, now=NOON)
    assert verify_ledger(ledger.path, KEYS, ledger.kept()).problems == ()
    assert not ran.exists()


@pytest.mark.parametrize("place", ["git", "file"])
def test_an_anchor_that_cannot_be_is_told_before_anything_is_entered(place: str, tmp_path: Path) -> None:
    where = tmp_path / "nowhere" / "anchor"
    anchor = open_file_or_git(parse_anchor(f"{place}:{where}"), os.environ)
    ledger = Ledger(tmp_path / "ledger.jsonl", (anchor,))
    with pytest.raises((CheckoutError, EvidenceError)) as raised:
        ledger.enter(decided(1), SIGNER, now=NOON)
    assert raised.value.remedy
    assert not ledger.path.exists()


@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink"])
def test_a_file_anchor_is_an_ordinary_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "anchor.json"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(EvidenceError, match="cannot be used as an anchor"):
        FileAnchor(path).read()


@pytest.mark.parametrize("text", ["", "file", "file:", "git:", "mlflow:x", "s3:bucket", "./anchor.json", "FILE:x"])
def test_what_names_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no anchor"):
        parse_anchor(text)


def test_the_anchor_in_the_registry_needs_a_registry() -> None:
    with pytest.raises(QuantGuardError, match="needs a registry"):
        open_file_or_git(parse_anchor("mlflow"), {})
