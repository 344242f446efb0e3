"""Signed evidence of pinned versions, against the keys and the policy of the base branch, in a real MLflow server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.check.facts import Answer
from quantguard.checkpoint.digest import model_digest
from quantguard.core.attestation import DEFAULT_ENVIRONMENT, Binding
from quantguard.core.remark import Level
from quantguard.evidence.keys import Signer
from quantguard.policy.load import LoadedPolicy
from quantguard.registry.embedded import EmbeddedServer
from tests.attest.made import DIGEST, SIGNER, measurements, signed_tags, write_made_policy
from tests.check.repository import NOW, Repository, messages, told
from tests.registry.world import FILES, version_of_logged_model, write_files

ERROR, WARNING = Level.ERROR, Level.WARNING
OTHER = "sha256:" + "b" * 64
New = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A policy and the gate's key are on main, and the manifest there says that it counts."""
    made = Repository(tmp_path / "checkout")
    write_made_policy(made.root / "policies")
    made.write("keys/gate.pub.pem", SIGNER.public.pem())
    ring = "schema: quantguard.keys/1\nkeys:\n  - {name: gate, public: gate.pub.pem}\n"
    made.write("keys/ring.yaml", ring)
    made.write("quantguard.yaml", manifest())
    made.commit()
    made.git("switch", "--quiet", "--create", "change")
    return made


@pytest.fixture
def policy(repository: Repository) -> LoadedPolicy:
    return write_made_policy(repository.root / "policies")


@pytest.fixture
def new(client: MlflowClient, logged_source: str, policy: LoadedPolicy) -> New:
    """Registers a version that the gate promoted, with evidence that is signed; returns models:/NAME/VERSION."""

    def make(*, signer: Signer = SIGNER, age: int = 1, quantized: int = 0, signed: bool = True) -> str:
        identity = version_of_logged_model(client, logged_source)
        binding = Binding(identity, DIGEST, DEFAULT_ENVIRONMENT)
        found = measurements(binding, quantized=quantized)
        at = NOW - timedelta(days=age)
        tags = signed_tags(policy, binding=binding, at=at, signer=signer, found=found) if signed else {}
        tags |= {"quantguard.verdict": "PROMOTE", "quantguard.model_digest": DIGEST}
        tags |= {"quantguard.policy": f"made {policy.digest}"}
        for key, value in tags.items():
            client.set_model_version_tag(identity.name, identity.version, key, value)
        return str(identity)

    return make


def manifest(*models: str, digest: str = DIGEST, keys: str = "keys: keys/ring.yaml\n") -> str:
    pins = "".join(f"  - {{model: {model}, digest: '{digest}'}}\n" for model in models)
    head = f"schema: quantguard.manifest/1\npolicy: policies/policy.yaml\n{keys}"
    return head + (f"models:\n{pins}" if pins else "")


def test_a_version_whose_evidence_admits_it_passes(
    repository: Repository, new: New, mlflow_server: EmbeddedServer
) -> None:
    repository.write("quantguard.yaml", manifest(new()))
    result = repository.check(uri=mlflow_server.uri)
    assert (told(result), result.answer) == ([], Answer.PASSED), messages(result)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"signed": False}, "evidence.missing"),
        ({"signer": Signer.generate()}, "evidence.forged"),
        ({"age": 31}, "evidence.stale"),
        ({"age": -1}, "evidence.clock"),
        ({"quantized": 60}, "policy.not-met"),
    ],
    ids=["missing", "forged", "stale", "clock", "not-met"],
)
def test_tags_that_say_promote_are_not_believed_where_keys_are_named(
    repository: Repository, new: New, mlflow_server: EmbeddedServer, how: dict[str, object], why: str
) -> None:
    repository.write("quantguard.yaml", manifest(new(**how)))
    result = repository.check(uri=mlflow_server.uri)
    assert told(result) == [(ERROR, "quantguard.yaml:5", "check.pin_evidence")]
    assert why in messages(result)


def test_evidence_of_another_version_or_of_other_bytes_is_none(
    repository: Repository, new: New, client: MlflowClient, mlflow_server: EmbeddedServer
) -> None:
    ours, copied = new(), new(signed=False)
    name, number = ours.removeprefix("models:/").split("/")
    to_name, to_number = copied.removeprefix("models:/").split("/")
    for key, value in client.get_model_version(name, number).tags.items():
        client.set_model_version_tag(to_name, to_number, key, value)
    repository.write("quantguard.yaml", manifest(copied))
    assert "evidence.other-version" in messages(repository.check(uri=mlflow_server.uri))
    repository.write("quantguard.yaml", manifest(ours, digest=OTHER))
    assert "evidence.other-bytes" in messages(repository.check(uri=mlflow_server.uri))


def test_a_change_cannot_bring_the_keys_that_it_is_judged_by(
    repository: Repository, new: New, mlflow_server: EmbeddedServer
) -> None:
    mine = Signer.generate()
    repository.write("keys/gate.pub.pem", mine.public.pem())
    repository.write("quantguard.yaml", manifest(new(signer=mine)))
    result = repository.check(uri=mlflow_server.uri)
    assert told(result) == [
        (ERROR, "quantguard.yaml:5", "check.pin_evidence"),
        (WARNING, "quantguard.yaml:3", "check.different"),
    ]


def test_keys_that_are_taken_out_are_a_looser_limit_and_those_of_the_base_branch_count(
    repository: Repository, new: New, mlflow_server: EmbeddedServer
) -> None:
    repository.write("quantguard.yaml", manifest(new(signed=False), keys=""))
    found = {(level, rule) for level, _, rule in told(repository.check(uri=mlflow_server.uri))}
    assert found == {(ERROR, "check.looser"), (ERROR, "check.pin_evidence")}


def test_the_operators_key_counts_instead(
    repository: Repository, new: New, mlflow_server: EmbeddedServer, tmp_path: Path
) -> None:
    operators = Signer.generate()
    file = tmp_path / "operators.pub.pem"
    file.write_bytes(operators.public.pem())
    repository.write("quantguard.yaml", manifest(new(signer=operators)))
    assert repository.check(uri=mlflow_server.uri, key=file).answer is Answer.PASSED
    assert repository.check(uri=mlflow_server.uri).answer is Answer.BLOCKED


@pytest.mark.parametrize("spoilt", ["keys/gate.pub.pem", "keys/ring.yaml"])
def test_keys_that_cannot_be_read_are_an_error_and_no_pass(tmp_path: Path, spoilt: str) -> None:
    made = Repository(tmp_path / "spoilt")
    write_made_policy(made.root / "policies")
    made.write("keys/gate.pub.pem", SIGNER.public.pem())
    made.write("keys/ring.yaml", "schema: quantguard.keys/1\nkeys:\n  - {name: gate, public: gate.pub.pem}\n")
    made.write(spoilt, b"\x00\xff")
    made.write("quantguard.yaml", manifest())
    made.commit()
    assert (ERROR, "check.invalid") in [(level, rule) for level, _, rule in told(made.check(base="HEAD"))]


def test_the_evidence_of_a_directory_is_told_to_be_unverified(repository: Repository) -> None:
    digest = model_digest(write_files(repository.root / "models/small", FILES))
    repository.write("quantguard.yaml", manifest("./models/small", digest=digest))
    result = repository.check()
    assert (told(result), result.answer) == (
        [(WARNING, "quantguard.yaml:5", "check.pin_unverified")],
        Answer.PASSED,
    )
    assert "quantguard evidence verify BUNDLE --key PUB --model ./models/small" in messages(result)
