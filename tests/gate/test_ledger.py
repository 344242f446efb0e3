"""No entry in the ledger, no alias."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.core.errors import LedgerError, UsageError
from quantguard.core.ledger import AnchorKind
from quantguard.core.verdict import Verdict
from quantguard.evidence.keys import Signer
from quantguard.evidence.ledger_anchors import FileAnchor, Ledger, parse_anchor
from quantguard.evidence.ledger_entry import parse_line
from quantguard.evidence.ledger_file import intent_path
from quantguard.evidence.ledger_verify import verify_ledger
from quantguard.evidence.records import digest_file
from quantguard.evidence.trusted import TrustedKeys
from quantguard.gate.fetch import fetch
from quantguard.gate.ledger import require_ledger
from quantguard.gate.publish import publish
from quantguard.gate.signing import Signing
from quantguard.registry.mlflow_registry import MlflowRegistry
from tests.evidence.ledgers import enter
from tests.gate.jobs import GatedOnce, NewJob
from tests.gate.picture import picture
from tests.stories import Kind

SIGNER = Signer.generate()
KEYS = TrustedKeys.of(SIGNER.public)


def test_the_alias_moves_when_the_ledger_has_the_decision_and_not_before(
    gated: GatedOnce, new_job: NewJob, client: MlflowClient, tmp_path: Path
) -> None:
    job = new_job(Kind.CLEAN, tmp_path / "work")
    work, registry = job.opened(), MlflowRegistry(job.uri)
    fetch(work, registry)
    gated(Kind.CLEAN).lend_evidence(job)
    ledger = Ledger(tmp_path / "ledger.jsonl", (FileAnchor(tmp_path / "head.json"),))
    signing = Signing(SIGNER, "production", ledger=ledger)

    enter(ledger.path, 1)
    ledger.anchor()
    entry = ledger.path.read_bytes()
    ledger.path.write_bytes(b"")  # cut since, by somebody who knows what lies beside it
    intent_path(ledger.path).unlink()
    before = picture(client)
    with pytest.raises(LedgerError):
        publish(work, registry, sign=signing.sign)
    assert picture(client) == before
    assert ledger.path.read_bytes() == b""

    ledger.path.write_bytes(entry)
    told = publish(work, registry, sign=signing.sign).events
    assert told[:2] == ("entry 2 of the ledger ledger.jsonl made", f"entry 2 anchored in file:{tmp_path}/head.json")
    (state,) = job.versions()
    assert state.aliases == ("champion",)
    last = parse_line(ledger.path.read_bytes().splitlines()[-1]).entry.decided
    assert last.verdict is Verdict.PROMOTE
    assert last.binding.identity.source == state.source
    assert last.binding.environment == "production"
    assert last.decision == digest_file(work.signed / "original" / "decision.dsse.json")

    later = Signing(SIGNER, "production", lambda: datetime.now(UTC) + timedelta(minutes=1), ledger)
    assert publish(work, registry, sign=later.sign).events[0] == "entry 2 of the ledger ledger.jsonl was there"
    assert len(ledger.path.read_bytes().splitlines()) == 2
    assert [p.line for p in verify_ledger(ledger.path, KEYS, ledger.kept()).problems] == [1]  # another gate's key


@pytest.mark.parametrize(
    ("required", "ledger", "anchors", "said"),
    [
        (None, None, ("file:x",), "an anchor without a ledger"),
        ((), None, (), "the policy asks for a ledger"),
        ((AnchorKind.GIT,), "l", (), "anchored in git"),
        ((AnchorKind.GIT, AnchorKind.FILE), "l", ("file:x", "mlflow"), "anchored in git"),
        (None, None, (), ""),
        (None, "l", (), ""),
        ((), "l", (), ""),
        ((AnchorKind.GIT, AnchorKind.FILE), "l", ("git:x", "mlflow", "file:x"), ""),
    ],
)
def test_a_machine_has_what_the_policy_asks_for(
    required: tuple[AnchorKind, ...] | None, ledger: str | None, anchors: tuple[str, ...], said: str
) -> None:
    path = None if ledger is None else Path(ledger)
    places = tuple(parse_anchor(anchor) for anchor in anchors)
    if not said:
        require_ledger(required, path, places)
        return
    with pytest.raises(UsageError, match=said) as raised:
        require_ledger(required, path, places)
    assert raised.value.remedy
