"""`quantguard canary register` on a real server."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from quantguard.canary.catalogue import CanaryKind, recorded_digest
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.state import version_states
from tests.cli.conftest import Run
from tests.registry.world import fresh_name


def test_register_says_what_it_did_and_what_to_do_next(mlflow_server: EmbeddedServer, run: Run) -> None:
    prefix, uri = fresh_name("canary-cli"), mlflow_server.uri
    ran = run("canary", "register", "--tracking-uri", uri, "--name-prefix", prefix, "--quiet")
    clean, attacked = f"models:/{prefix}-clean/1", f"models:/{prefix}-nf4-attacked/1"
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        f"{clean}: registered; {recorded_digest(CanaryKind.CLEAN)}",
        f"{attacked}: registered; {recorded_digest(CanaryKind.NF4_ATTACKED)}",
        "now gate them, in QuantGuard's checkout:",
        f"  quantguard gate {clean} --policy policies/canary.yaml --tracking-uri {uri}",
        f"  quantguard gate {attacked} --policy policies/canary.yaml --tracking-uri {uri}",
    ]
    again = run("canary", "register", "--tracking-uri", uri, "--name-prefix", prefix, "--quiet")
    assert again.code == 0
    assert again.out == ran.out.replace(": registered;", ": registered already, nothing added;")
    assert len(version_states(uri, f"{prefix}-clean")) == len(version_states(uri, f"{prefix}-nf4-attacked")) == 1


def test_register_takes_the_server_from_the_environment_and_adds_a_version_when_told(
    mlflow_server: EmbeddedServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = fresh_name("canary-cli")
    for version in ("1", "2"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)  # each run puts the environment back
        options = ("--name-prefix", prefix, "--kind", "malicious", "--kind", "malicious", "--again", "--quiet")
        ran = run("canary", "register", *options)
        identity = f"models:/{prefix}-malicious/{version}"
        assert ran.code == 0, ran.err
        assert ran.out.splitlines()[0].startswith(f"{identity}: registered;")
        assert ran.out.splitlines()[-1] == f"  quantguard gate {identity} --policy policies/canary.yaml"
    assert version_states(mlflow_server.uri, f"{prefix}-clean") == ()


def test_register_leaves_a_model_that_is_no_canary_alone(mlflow_server: EmbeddedServer, run: Run) -> None:
    prefix = fresh_name("canary-cli")
    MlflowClient(mlflow_server.uri, mlflow_server.uri).create_registered_model(f"{prefix}-nf4-attacked")
    ran = run("canary", "register", "--tracking-uri", mlflow_server.uri, "--name-prefix", prefix, "--quiet")
    assert (ran.code, ran.out) == (4, "")
    assert f"a model {prefix}-nf4-attacked that is not this canary" in ran.err
    assert "give another --name-prefix" in ran.err
    assert version_states(mlflow_server.uri, f"{prefix}-nf4-attacked") == ()
    assert version_states(mlflow_server.uri, f"{prefix}-clean") == ()


def test_register_repeats_no_password(mlflow_server: EmbeddedServer, run: Run) -> None:
    secret = mlflow_server.uri.replace("://", "://ann:p@ss-word@")
    prefix = fresh_name("canary-cli")
    ran = run("canary", "register", "--tracking-uri", secret, "--name-prefix", prefix, "--kind", "clean")
    assert ran.code == 0, ran.err
    assert "ss-word" not in ran.out + ran.err
    assert "with MLFLOW_TRACKING_URI set:" in ran.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give --tracking-uri, or set MLFLOW_TRACKING_URI"),
        (("--tracking-uri", "sqlite:///mlflow.db"), "is not the address of an MLflow server"),
        (("--tracking-uri", "http://127.0.0.1:9", "--name-prefix", "a/b"), "has more than letters"),
        (("--tracking-uri", "http://127.0.0.1:9", "--kind", "evil"), "'evil' is not one of"),
    ],
    ids=["no-server", "database", "prefix", "kind"],
)
def test_register_asks_for_what_it_needs(
    options: tuple[str, ...], words: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ran = run("canary", "register", *options)
    assert (ran.code, ran.out) == (4, "")
    assert words in ran.err
