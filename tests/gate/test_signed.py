"""With a key, what the gate decided is signed before an alias moves; without one, all is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quantguard.attest.admission import Admitted, Refused, Rule, Rules, admit
from quantguard.attest.bundle import MODEL_SIGNATURE, intact
from quantguard.attest.load import load_verified
from quantguard.attest.tags import DECISION_TAG
from quantguard.attest.verify import Asked, State, verify_bundle
from quantguard.checkpoint.digest import model_digest
from quantguard.cli.environment import SIGNING_KEY, registry_environment
from quantguard.core.errors import EvidenceError, NotAdmittedError
from quantguard.core.model import RegisteredVersion
from quantguard.core.verdict import Verdict
from quantguard.evidence.keys import Signer, write_key_pair
from quantguard.evidence.trusted import TrustedKeys, read_trusted
from quantguard.gate.publish import decided, publish
from quantguard.gate.registries import registry_for
from quantguard.gate.signing import Signing
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.state import VersionState
from tests.command import quantguard
from tests.gate.jobs import GatedOnce, Job, NewJob
from tests.stories import Kind


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("key")
    write_key_pair(Signer.generate(), folder / "gate.pem", folder / "gate.pub.pem")
    return folder / "gate.pem"


def answer(job: Job, state: VersionState, keys: TrustedKeys, environment: str = "production") -> Admitted | Refused:
    registry = MlflowRegistry(job.uri)
    identity = registry.identify(RegisteredVersion(job.name, state.version))
    rules = Rules(job.opened().policy, keys, environment)
    return admit(dict(state.tags), identity, rules, now=datetime.now(UTC))


def test_both_versions_are_signed_and_only_the_repaired_one_is_admitted(
    gated: GatedOnce, new_job: NewJob, key: Path, tmp_path: Path
) -> None:
    job = new_job(Kind.ATTACKED, tmp_path / "work")
    signing = ("--key", key, "--environment", "production", "--quiet")
    ran = quantguard(*job.command, *signing)
    assert ran.code == 0, ran.err
    keys = read_trusted(key.with_suffix(".pub.pem"))
    original, hardened = job.versions()
    assert (original.aliases, hardened.aliases) == ((), ("champion",))
    refused, admitted = answer(job, original, keys), answer(job, hardened, keys)
    assert isinstance(refused, Refused)
    assert refused.rule is Rule.NOT_MET
    assert isinstance(admitted, Admitted)
    elsewhere = answer(job, hardened, keys, "staging")
    assert isinstance(elsewhere, Refused)
    assert elsewhere.rule is Rule.OTHER_ENVIRONMENT
    for subject, model in (("original", job.work / "model"), ("hardened", job.work / "hardened" / "model")):
        bundle = job.work / "signed" / subject
        assert verify_bundle(Asked(bundle, keys, datetime.now(UTC), model)).state is State.OK
        assert (bundle / MODEL_SIGNATURE).exists() == (subject == "hardened")
    a_consumer_loads(job, key, tmp_path / "served")
    # The same command again signs nothing anew, so that no tag and no webhook tells of it.
    tags = [state.tags for state in job.versions()]
    assert quantguard(*job.command, "--stage", "publish", *signing).code == 0
    assert [state.tags for state in job.versions()] == tags
    client = MlflowRegistry(job.uri)._client
    run = dict(hardened.tags)["quantguard.bundle"].removeprefix("runs:/").partition("/")
    listed = {file.path for file in client.list_artifacts(run[0], run[2])}
    assert f"{run[2]}/decision.dsse.json" in listed


def a_consumer_loads(job: Job, key: Path, directory: Path) -> None:
    """What holds the alias, and not what was repaired; OpenSSF's own command knows the bytes by the bundle."""
    public = key.with_suffix(".pub.pem")
    policy, uri = job.policy, job.uri
    loaded = load_verified(
        f"models:/{job.name}@champion",
        directory,
        keys=public,
        policy=policy,
        tracking_uri=uri,
        environment="production",
    )
    assert loaded.identity.version == "2"
    assert model_digest(directory) == model_digest(job.work / "hardened" / "model")
    theirs = ("verify", "key", directory, "--public_key", public)
    signature = job.work / "signed" / "hardened" / MODEL_SIGNATURE
    command = [sys.executable, "-m", "model_signing", *map(str, (*theirs, "--signature", signature))]
    assert "Verification succeeded" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with pytest.raises(NotAdmittedError, match=r"policy\.not-met"):
        load_verified(
            f"models:/{job.name}/1", directory, keys=public, policy=policy, tracking_uri=uri, environment="production"
        )
    assert not directory.exists()


def signed_job(gated: GatedOnce, new_job: NewJob, work: Path) -> Job:
    """Fetched, and assessed with what another job measured of the same bytes."""
    job = new_job(Kind.CLEAN, work)
    assert quantguard(*job.command, "--stage", "fetch", "--quiet").code == 0
    gated(Kind.CLEAN).lend_evidence(job)
    return job


def test_what_would_be_refused_is_not_promoted(gated: GatedOnce, new_job: NewJob, tmp_path: Path) -> None:
    job = signed_job(gated, new_job, tmp_path / "work")
    later = Signing(Signer.generate(), "production", lambda: datetime.now(UTC) + timedelta(days=40))
    with pytest.raises(EvidenceError, match=r"evidence\.stale"):
        publish(job.opened(), registry_for(job.ref, job.uri), sign=later.sign)
    earlier = Signing(Signer.generate(), "production", lambda: datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(EvidenceError, match="future"):
        publish(job.opened(), registry_for(job.ref, job.uri), sign=earlier.sign)
    (state,) = job.versions()
    assert (state.aliases, state.tag(DECISION_TAG)) == ((), None)


def test_a_bundle_is_made_again_only_where_something_in_it_changed(
    gated: GatedOnce, new_job: NewJob, tmp_path: Path
) -> None:
    job = signed_job(gated, new_job, tmp_path / "work")
    work, signer = job.opened(), Signer.generate()
    fetched = work.require_fetched()
    decision = decided(work, fetched).original
    assert decision.verdict is Verdict.PROMOTE
    times = iter(datetime.now(UTC) + timedelta(minutes=minute) for minute in range(100))
    signing = Signing(signer, "production", lambda: next(times))

    def signed(given: Signing = signing) -> dict[str, str]:
        return dict(given.sign(work, fetched.identity, fetched.model_digest, decision).tags)

    first = signed()
    assert signed() == first
    (work.signed / "original" / "policy.yaml").write_bytes(b"other")
    assert signed() != first  # at another time
    assert intact(work.signed / "original", TrustedKeys.of(signer.public)) is not None
    second = signed()
    (work.signed / "original.json").unlink()  # killed before it was written down
    assert signed() != second
    assert signed(replace(signing, environment="staging")) != signed()
    assert not list(work.signed.glob(".*"))


def test_without_a_key_nothing_is_signed_and_that_is_told(gated: GatedOnce, tmp_path: Path) -> None:
    done = gated(Kind.CLEAN)
    assert [key for key, _ in done.job.versions()[0].tags if "attestation" in key or "bundle" in key] == []
    assert not (done.job.work / "signed").exists()
    assert "the evidence is not signed" in done.ran.err


def test_the_key_reaches_the_third_room_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_KEY, "secret")
    assert SIGNING_KEY not in registry_environment(None)
    assert registry_environment(None, signs=True)[SIGNING_KEY] == "secret"
    assert os.environ[SIGNING_KEY] == "secret"


def test_a_key_that_is_none_is_told_before_anything_is_measured(tmp_path: Path, policy_file: Path) -> None:
    (tmp_path / "open.pem").write_bytes(Signer.generate().private_pem())
    (tmp_path / "open.pem").chmod(0o644)
    command = ("gate", tmp_path, "--policy", policy_file, "--work", tmp_path / "w")
    for given, said in (("open.pem", "chmod 600"), ("none.pem", "cannot be read")):
        ran = quantguard(*command, "--key", tmp_path / given)
        assert (ran.code, said in ran.err) == (4, True), ran.err
    ran = quantguard(*command, env={SIGNING_KEY: "secret-not"})
    assert (ran.code, "not a private key" in ran.err, "secret-not" in ran.err + ran.out) == (4, True, False), ran.err
    assert not (tmp_path / "w" / "model").exists()
