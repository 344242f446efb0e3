"""Pinned models: looked up in a real MLflow server, or on disk."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.check.facts import Answer, CheckResult
from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import UsageError
from quantguard.core.remark import Level
from quantguard.registry.embedded import EmbeddedServer
from tests.check.repository import PATH, Repository, messages, with_policy
from tests.check.repository import told as all_told
from tests.policy.written import POLICY
from tests.registry.world import FILES, version_of_logged_model, write_files

ERROR, WARNING, NOTICE = Level.ERROR, Level.WARNING, Level.NOTICE
DIGEST = "sha256:" + "a" * 64
UNDER = f"small sha256:{hashlib.sha256(POLICY.encode()).hexdigest()}"  # as the gate's tag names the policy
UNVERIFIED = "check.pin_unverified"  # no keys are named in most tests here: once a manifest
Tagged = Callable[..., str]


def told(result: CheckResult) -> list[tuple[Level, str, str]]:
    """What is told of the pins one by one."""
    return [row for row in all_told(result) if row[2] != UNVERIFIED]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return with_policy(tmp_path / "checkout")


@pytest.fixture
def tagged(client: MlflowClient, logged_source: str) -> Tagged:
    """Register a version with the tags that the gate writes; returns models:/NAME/VERSION."""

    def make(verdict: str | None = "PROMOTE", *, digest: str = DIGEST, policy: str = UNDER) -> str:
        version = version_of_logged_model(client, logged_source)
        tags = {"verdict": verdict, "model_digest": digest, "policy": policy, "reason": "attack rate 3 of 50"}
        for key, value in tags.items() if verdict is not None else ():
            client.set_model_version_tag(version.name, version.version, f"quantguard.{key}", value or "")
        return str(version)

    return make


def manifest(*pins: str, policy: str = PATH, more: str = "") -> str:
    head = f"schema: quantguard.manifest/1\npolicy: {policy}\n{more}"
    return head + ("models:\n" + "".join(f"  - {{{pin}}}\n" for pin in pins) if pins else "")


def test_a_promoted_version_passes(repository: Repository, tagged: Tagged, mlflow_server: EmbeddedServer) -> None:
    repository.write("quantguard.yaml", manifest(f'model: {tagged()}, digest: "{DIGEST}"', f"model: {tagged()}"))
    result = repository.check(uri=mlflow_server.uri)
    assert all_told(result) == [(WARNING, "quantguard.yaml:3", UNVERIFIED)]
    assert (result.pins, result.answer) == (2, Answer.PASSED)


@pytest.mark.parametrize("verdict", ["BLOCK", "HOLD", "promote", ""])
def test_a_version_with_another_verdict_does_not_pass(
    repository: Repository, tagged: Tagged, mlflow_server: EmbeddedServer, verdict: str
) -> None:
    repository.write("quantguard.yaml", manifest(f"model: {tagged(verdict)}"))
    result = repository.check(uri=mlflow_server.uri)
    assert told(result) == [(ERROR, "quantguard.yaml:4", "check.pin_verdict")]
    assert "attack rate 3 of 50" in messages(result)


def test_a_version_that_was_never_gated_is_a_warning_that_says_how(
    repository: Repository, tagged: Tagged, mlflow_server: EmbeddedServer
) -> None:
    model = tagged(None)
    repository.write("quantguard.yaml", manifest(f'model: {model}, digest: "{DIGEST}"'))
    result = repository.check(uri=mlflow_server.uri)
    assert told(result) == [(WARNING, "quantguard.yaml:4", "check.pin_ungated")]
    assert f"quantguard gate {model} --policy {PATH}" in messages(result)


@pytest.mark.parametrize("gone", ["models:/no-such-model/1", "{model}0"])
def test_a_version_that_is_gone_is_an_error_at_its_line(
    repository: Repository, tagged: Tagged, mlflow_server: EmbeddedServer, gone: str
) -> None:
    model = tagged()
    repository.write("quantguard.yaml", manifest(f"model: {model}", f"model: {gone.format(model=model)}"))
    result = repository.check(uri=mlflow_server.uri)
    assert told(result) == [(ERROR, "quantguard.yaml:5", "check.pin_gone")]


def test_other_bytes_than_the_digest_are_an_error(
    repository: Repository, tagged: Tagged, mlflow_server: EmbeddedServer
) -> None:
    pins = [
        f'model: {tagged(digest="sha256:" + "b" * 64)}, digest: "{DIGEST}"',
        f'model: {tagged(digest="")}, digest: "{DIGEST}"',
    ]
    repository.write("quantguard.yaml", manifest(*pins))
    result = repository.check(uri=mlflow_server.uri)
    assert told(result) == [(ERROR, f"quantguard.yaml:{line}", "check.pin_digest") for line in (4, 5)]


def test_a_promotion_under_another_policy_is_none(
    repository: Repository, tagged: Tagged, mlflow_server: EmbeddedServer
) -> None:
    other, before = tagged(policy=UNDER.replace("small", "lax")), tagged(policy=f"small {DIGEST}")
    repository.write("quantguard.yaml", manifest(f"model: {other}", f"model: {before}"))
    result = repository.check(uri=mlflow_server.uri)
    assert told(result) == [
        (ERROR, "quantguard.yaml:4", "check.pin_verdict"),
        (WARNING, "quantguard.yaml:5", "check.pin_ungated"),
    ]


def test_without_an_answer_nothing_passes(repository: Repository, tmp_path: Path) -> None:
    repository.write("quantguard.yaml", manifest("model: models:/a/1", "model: models:/b/2"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://user:password@127.0.0.1:{closed.getsockname()[1]}"
        for result in (repository.check(), repository.check(uri=uri)):
            assert result.answer is Answer.UNKNOWN
            assert result.answer.exit_code == 2
            assert told(result) == [(ERROR, f"quantguard.yaml:{line}", "check.pin_unknown") for line in (4, 5)]
            assert "password" not in messages(result)
        repository.replace(PATH, "steps: 10", "steps: 0")
        assert repository.check(uri=uri).answer is Answer.BLOCKED  # what is known to be wrong comes first
    with pytest.raises(UsageError, match="is not the address"):
        repository.check(uri="sqlite:///mlflow.db")


def test_a_directory_is_held_to_its_digest(repository: Repository, tmp_path: Path) -> None:
    digest = model_digest(write_files(repository.root / "models/small", FILES))
    repository.write("quantguard.yaml", manifest(f'model: ./models/small, digest: "{digest}"'))
    assert repository.check().answer is Answer.PASSED
    repository.write("models/small/config.json", "{ }")
    assert told(repository.check()) == [(ERROR, "quantguard.yaml:4", "check.pin_digest")]
    repository.write("quantguard.yaml", manifest("model: ./models/small"))
    result = repository.check()
    assert told(result) == [(WARNING, "quantguard.yaml:4", "check.pin_ungated")]
    assert f"add digest: {model_digest(repository.root / 'models/small')}" in messages(result)


@pytest.mark.parametrize("model", ["./../outside", "./models/link", "./link/small", "./models/small/../../../outside"])
def test_a_directory_that_leads_out_of_the_checkout_is_refused(
    repository: Repository, tmp_path: Path, model: str
) -> None:
    write_files(tmp_path / "outside", FILES)
    write_files(repository.root / "models/small", FILES)
    (repository.root / "models/link").symlink_to(tmp_path / "outside")
    (repository.root / "link").symlink_to("models")
    repository.write("quantguard.yaml", manifest(f'model: {model}, digest: "{DIGEST}"'))
    assert told(repository.check()) == [(ERROR, "quantguard.yaml:4", "check.unsafe_path")]


def test_a_link_inside_a_directory_and_no_directory_are_errors(repository: Repository, tmp_path: Path) -> None:
    write_files(repository.root / "models/small", FILES)
    (repository.root / "models/small/extra.json").symlink_to(tmp_path)
    pins = ("model: ./models/small", "model: ./models/none", f"model: ./{PATH}")
    repository.write("quantguard.yaml", manifest(*pins))
    assert [rule for _, _, rule in told(repository.check())] == [
        "check.unsafe_path",
        "check.pin_gone",
        "check.pin_gone",
    ]


def test_a_pin_that_no_policy_judges_is_a_warning(
    repository: Repository, tagged: Tagged, mlflow_server: EmbeddedServer
) -> None:
    repository.write("quantguard.yaml", f"schema: quantguard.manifest/1\nmodels:\n  - model: {tagged(policy='any')}\n")
    result = repository.check(uri=mlflow_server.uri)
    assert told(result) == [(WARNING, "quantguard.yaml:3", "check.pin_policy")]
