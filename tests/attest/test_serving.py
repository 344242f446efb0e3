"""The examples in docs/serving start nothing but what was admitted."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.attest.tags import MEASUREMENTS_TAG
from quantguard.canary.catalogue import MODELS
from quantguard.checkpoint.digest import model_digest
from quantguard.cli.load import load
from quantguard.core.attestation import Binding
from quantguard.core.model import VersionIdentity
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.register import register_directory
from tests.attest.made import SIGNER, signed_tags, write_made_policy
from tests.command import environment
from tests.policy.made import measured
from tests.registry.world import fresh_name

EXAMPLES = Path(__file__).parents[2] / "docs" / "serving"
CLEAN = MODELS / "clean"


@pytest.fixture
def champion(mlflow_server: EmbeddedServer, tmp_path: Path) -> VersionIdentity:
    """The clean canary, signed for as what a policy of three schemes admits; policy and key lie in `tmp_path`."""
    (tmp_path / "gate.pub.pem").write_bytes(SIGNER.public.pem())
    policy = write_made_policy(tmp_path, schemes=["nf4", "nf4-double", "int8"])
    client = MlflowClient(mlflow_server.uri, mlflow_server.uri)
    identity = register_directory(mlflow_server.uri, fresh_name("served"), CLEAN)
    digest = model_digest(CLEAN)
    found = replace(measured(policy=policy.policy), model_digest=digest)
    tags = signed_tags(policy, binding=Binding(identity, digest, "default"), at=datetime.now(UTC), found=found)
    for key, value in tags.items():
        client.set_model_version_tag(identity.name, identity.version, key, value)
    client.set_registered_model_alias(identity.name, "champion", identity.version)
    return identity


def start_vllm(folder: Path, uri: str, name: str) -> subprocess.CompletedProcess[str]:
    """The start-up script, with a vllm on PATH that says what it was asked to serve."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "vllm"
    program.write_text('#!/bin/sh\necho "vllm $*; registry ${MLFLOW_TRACKING_URI:-none}"; ls "$2"\n')
    program.chmod(0o755)
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {
        "PATH": path,
        "MODEL": f"models:/{name}@champion",
        "DIRECTORY": str(folder / "model"),
        "POLICY": str(folder / "policy.yaml"),
        "KEY": str(folder / "gate.pub.pem"),
        "MLFLOW_TRACKING_URI": uri,
    }
    command = [str(EXAMPLES / "start-vllm.sh"), "--port", "8001"]
    return subprocess.run(command, env=environment(settings), capture_output=True, text=True, check=False)


def test_the_start_up_script_serves_what_was_admitted_and_nothing_where_it_is_refused(
    mlflow_server: EmbeddedServer, champion: VersionIdentity, tmp_path: Path
) -> None:
    started = start_vllm(tmp_path, mlflow_server.uri, champion.name)
    assert started.returncode == 0, started.stderr
    served = f"vllm serve {tmp_path / 'model'} --quantization bitsandbytes"
    assert f"{served} --served-model-name models:/{champion.name}@champion --port 8001; registry none" in started.stdout
    assert "model.safetensors" in started.stdout
    client = MlflowClient(mlflow_server.uri, mlflow_server.uri)
    client.delete_model_version_tag(champion.name, champion.version, MEASUREMENTS_TAG)
    refused = start_vllm(tmp_path, mlflow_server.uri, champion.name)
    assert refused.returncode == 1
    assert "evidence.missing" in refused.stderr
    assert "vllm" not in refused.stdout
    assert not (tmp_path / "model").exists()


def test_the_command_of_the_unit_is_one_that_quantguard_takes() -> None:
    unit = (EXAMPLES / "assistant.service").read_text(encoding="utf-8").replace("\\\n", " ")
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    program, command, *arguments = shlex.split(settings["ExecStartPre"])
    assert (Path(program).name, command) == ("quantguard", "load")
    given = load.make_context("load", arguments).params
    served = shlex.split(settings["ExecStart"])
    assert served[1:3] == ["serve", str(given["directory"])]


@pytest.mark.slow
def test_the_example_answers_with_the_model_that_was_admitted(
    mlflow_server: EmbeddedServer, champion: VersionIdentity, tmp_path: Path
) -> None:
    given = ["--directory", str(tmp_path / "model"), "--tracking-uri", mlflow_server.uri]
    given += ["--policy", str(tmp_path / "policy.yaml"), "--key", str(tmp_path / "gate.pub.pem")]
    command = [sys.executable, str(EXAMPLES / "answer.py"), f"models:/{champion.name}@champion", "the sky is", *given]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    client = MlflowClient(mlflow_server.uri, mlflow_server.uri)
    client.delete_model_version_tag(champion.name, champion.version, MEASUREMENTS_TAG)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
