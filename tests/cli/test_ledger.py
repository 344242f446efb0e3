"""`quantguard ledger`: what it says, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantguard.evidence.ledger_file import Intent, intent_path, write_intent
from tests.cli.conftest import Run
from tests.evidence.ledgers import SIGNER, STRANGER, enter
from tests.stories import write_policy


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger of three entries, `head.json` that keeps the last, and the key in `gate.pub.pem`."""
    path = tmp_path / "ledger.jsonl"
    for number in (1, 2, 3):
        enter(path, number, name="assistant" if number < 3 else "other\x1b[31m")
    (tmp_path / "gate.pub.pem").write_bytes(SIGNER.public.pem())
    (tmp_path / "head.json").write_bytes(path.read_bytes().splitlines()[-1])
    return path


def verify(run: Run, ledger: Path, *more: str) -> tuple[int, str]:
    told = run("ledger", "verify", ledger, "--key", ledger.parent / "gate.pub.pem", *more)
    return told.code, told.out


def test_verify_says_what_is_so(run: Run, ledger: Path) -> None:
    code, out = verify(run, ledger, "--anchor", f"file:{ledger.parent}/head.json")
    assert code == 0
    assert "3 entries" in out
    assert "entry 3 is in it" in out
    assert out.endswith("OK\n")
    code, out = verify(run, ledger)
    assert (code, "note: no --anchor" in out) == (0, True)


def test_verify_says_what_was_changed(run: Run, ledger: Path) -> None:
    first, second, third = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(first + second.replace(b"PROMOTE", b"BLOCK") + third)
    code, out = verify(run, ledger)
    assert code == 1
    assert f"line 2: edited: entry 2: the signature of {SIGNER.public.key_id[:16]} does not fit it" in out
    assert "CHANGED" in out
    ledger.write_bytes(first + third)
    assert verify(run, ledger)[1].count("line 2: missing: 1 entry is missing between entry 1 and entry 3") == 1
    ledger.write_bytes(first + second)
    intent_path(ledger).unlink()
    code, out = verify(run, ledger, "--anchor", f"file:{ledger.parent}/head.json", "--output", "json")
    told = json.loads(out)
    assert (code, told["changed"], told["problems"][0]["problem"]) == (1, True, "truncated")


def test_verify_could_not_tell(run: Run, ledger: Path) -> None:
    code, out = verify(run, ledger, "--anchor", f"file:{ledger.parent}/none.json")
    assert (code, "unanchored" in out, "COULD NOT TELL" in out) == (2, True, True)
    whole = ledger.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    write_intent(ledger, Intent(len(whole) - len(last), last))
    ledger.write_bytes(whole[:-10])
    code, out = verify(run, ledger)
    assert (code, "line 3: unfinished" in out) == (2, True)
    ran = run("ledger", "anchor", ledger, "--anchor", f"file:{ledger.parent}/none.json")
    assert (ran.code, "entry 3, whose writer had died, finished" in ran.out) == (0, True)
    assert ledger.read_bytes() == whole
    assert (ledger.parent / "none.json").read_bytes() == last


def test_another_key_trusts_none_of_it(run: Run, ledger: Path) -> None:
    (ledger.parent / "gate.pub.pem").write_bytes(STRANGER.public.pem())
    code, out = verify(run, ledger)
    assert (code, out.count("foreign signer")) == (1, 3)


def test_show_lists_and_shows_no_control_characters(run: Run, ledger: Path) -> None:
    ran = run("ledger", "show", ledger)
    assert ran.code == 0
    assert "models:/assistant/2" in ran.out
    assert "\x1b" not in ran.out
    told = json.loads(run("ledger", "show", ledger, "--model", "assistant", "--output", "json").out)
    assert [entry["sequence"] for entry in told] == [1, 2]
    with ledger.open("ab") as stream:
        stream.write(b"mine\n")
    ran = run("ledger", "show", ledger)
    assert (ran.code, "line 4 is no entry" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("show", "LEDGER.no"), 2, "there is no such ledger"),
        (("anchor", "LEDGER"), 4, "name an anchor"),
        (("anchor", "LEDGER", "--anchor", "s3:bucket"), 4, "is no anchor"),
        (("anchor", "LEDGER", "--anchor", "mlflow"), 4, "needs a registry"),
        (("verify", "LEDGER", "--key", "LEDGER"), 4, "not a public key"),
        (("verify", "LEDGER", "--key", "LEDGER.pem"), 4, "cannot be read"),
    ],
    ids=lambda told: " ".join(told) if isinstance(told, tuple) else None,
)
def test_what_cannot_be_done_is_told(run: Run, ledger: Path, more: tuple[str, ...], code: int, said: str) -> None:
    ran = run("ledger", *(part.replace("LEDGER", str(ledger)) for part in more))
    assert (ran.code, said in ran.err) == (code, True), ran.err


@pytest.mark.parametrize(
    ("section", "said", "given"),
    [
        ("", "what a ledger holds is signed", "--ledger l.jsonl"),
        ("", "an anchor without a ledger", "--ledger-anchor mlflow"),
        ("", "'tape' is no anchor", "--ledger l.jsonl --ledger-anchor tape"),
        ("ledger: {}\n", "the policy asks for a ledger", ""),
        ("ledger: {anchors: [git]}\n", "anchored in git", "--ledger l.jsonl --ledger-anchor file:x"),
    ],
)
def test_a_gate_without_its_ledger_does_nothing(run: Run, tmp_path: Path, section: str, said: str, given: str) -> None:
    policy = write_policy(tmp_path / "policy")
    policy.write_text(policy.read_text(encoding="utf-8") + section, encoding="utf-8")
    ran = run("gate", "models:/m/1", "--policy", policy, "--work", tmp_path / "work", *given.split())
    assert (ran.code, said in ran.err) == (4, True), ran.err
    assert not (tmp_path / "work").exists()
