"""The ledger's anchor in a real MLflow server."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.core.errors import LedgerError, RegistryError, RegistryUnreachableError
from quantguard.evidence.ledger_anchors import Ledger
from quantguard.evidence.ledger_file import intent_path
from quantguard.evidence.ledger_verify import Kept, Trouble, verify_ledger
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.ledger_tag import TAG, MlflowAnchor
from quantguard.registry.records import EXPERIMENT
from tests.evidence.ledgers import KEYS, NOON, SIGNER, decided


def test_the_tag_follows_the_ledger_and_misses_what_is_cut(
    mlflow_server: EmbeddedServer, client: MlflowClient, tmp_path: Path
) -> None:
    anchor = MlflowAnchor(mlflow_server.uri)
    ledger = Ledger(tmp_path / "ledger.jsonl", (anchor,))
    try:
        for number in (1, 2):
            done, events = ledger.enter(decided(number), SIGNER, now=NOON)
            assert anchor.read() == done.line
            assert events[-1].startswith(f"entry {number} anchored in mlflow")
        assert ledger.anchor() == ()
        assert not anchor.move(done.line, None)  # somebody else was first
        ledger.path.write_bytes(ledger.path.read_bytes().splitlines(keepends=True)[0])
        intent_path(ledger.path).unlink()
        with pytest.raises(LedgerError):
            ledger.enter(decided(3), SIGNER, now=NOON)
        assert [p.trouble for p in verify_ledger(ledger.path, KEYS, ledger.kept()).problems] == [Trouble.TRUNCATED]
        client.set_experiment_tag(experiment(client), TAG, "mine now ☺")
        found = verify_ledger(ledger.path, KEYS, (Kept(anchor.where, anchor.read()),))
        assert [p.trouble for p in found.problems] == [Trouble.UNANCHORED]
    finally:
        client.delete_experiment_tag(experiment(client), TAG)


def experiment(client: MlflowClient) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    assert found is not None
    return str(found.experiment_id)


def test_what_does_not_fit_into_a_tag_is_told(mlflow_server: EmbeddedServer) -> None:
    with pytest.raises(RegistryError, match="a tag holds 5000"):
        MlflowAnchor(mlflow_server.uri).move(b"x" * 5001, None)


def test_no_answer_is_no_anchor() -> None:
    with pytest.raises(RegistryUnreachableError):
        MlflowAnchor("http://127.0.0.1:9").read()
