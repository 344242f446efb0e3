"""kill -9 while signed evidence is written: the same command again ends with the same tags, and they are whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quantguard.attest.admission import Admitted, Rules, admit
from quantguard.attest.tags import DECISION_TAG
from quantguard.core.model import RegisteredVersion
from quantguard.evidence.keys import Signer, write_key_pair
from quantguard.evidence.trusted import read_trusted
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.mlflow_registry import MlflowRegistry
from tests.command import Running, quantguard
from tests.gate.jobs import GatedOnce, NewJob
from tests.gate.proxy import Proxy
from tests.gate.test_kill import ALIAS, is_request
from tests.stories import Kind

SET_TAG = ("POST", "/mlflow/model-versions/set-tag")


@pytest.mark.parametrize("request_", [SET_TAG, ALIAS], ids=["first-tag", "alias"])
def test_a_publication_that_is_killed_is_completed_with_the_same_evidence(
    request_: tuple[str, str], gated: GatedOnce, new_job: NewJob, mlflow_server: EmbeddedServer, tmp_path: Path
) -> None:
    write_key_pair(Signer.generate(), tmp_path / "gate.pem", tmp_path / "gate.pub.pem")
    with Proxy(mlflow_server.uri) as proxy:
        job = replace(new_job(Kind.CLEAN, tmp_path / "work"), uri=proxy.uri)
        assert quantguard(*job.command, "--stage", "fetch", "--quiet").code == 0
        gated(Kind.CLEAN).lend_evidence(job)
        command = (*job.command, "--stage", "publish", "--key", tmp_path / "gate.pem", "--quiet")
        with Running(*command, log=tmp_path / "log") as running:
            proxy.on_answer = lambda asked: running.kill() if is_request(asked, request_) else None
            assert running.wait() == -9, (tmp_path / "log").read_text()
        proxy.on_answer = lambda _: None
        signed = (job.work / "signed" / "original" / "decision.dsse.json").read_bytes()
        ran = quantguard(*command)
        assert ran.code == 0, ran.err
        assert (job.work / "signed" / "original" / "decision.dsse.json").read_bytes() == signed
        first_alias = next(place for place, asked in enumerate(proxy.asked) if is_request(asked, ALIAS))
        tags_before = [asked for asked in proxy.asked[:first_alias] if is_request(asked, SET_TAG)]
        assert len(tags_before) >= 2  # both halves of the evidence are there before the alias is
    (state,) = replace(job, uri=mlflow_server.uri).versions()
    assert state.aliases == ("champion",)
    assert state.tag(DECISION_TAG)
    identity = MlflowRegistry(mlflow_server.uri).identify(RegisteredVersion(job.name, "1"))
    rules = Rules(job.opened().policy, read_trusted(tmp_path / "gate.pub.pem"), "default")
    assert isinstance(admit(dict(state.tags), identity, rules, now=datetime.now(UTC)), Admitted)
