"""What a process inside each container could reach, told by that process itself at its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from action.rooms import MEASURED, STAGES
from tests.containers.conftest import NewRunner
from tests.containers.runner import USER, Ran, Runner
from tests.stories import Kind

SECRETS = ("READ-SECRET", "WRITE-SECRET", "AWS-SECRET", "RUNNER-SECRET", "RUNTIME-SECRET", "GIT-SECRET")


@dataclass(frozen=True, slots=True)
class Told:
    runner: Runner
    ran: Ran
    rooms: dict[str, dict[str, Any]]  # by stage


@pytest.fixture
def told(watched: NewRunner, monkeypatch: pytest.MonkeyPatch) -> Told:
    runner = watched(
        Kind.ATTACKED,
        read_token="READ-SECRET",
        write_token="WRITE-SECRET",
        registry_env="AWS_SECRET_ACCESS_KEY",
    )
    monkeypatch.setattr(Runner, "environment", _with_aws(Runner.environment))
    ran = runner.run()
    assert ran.code == 0, ran.log
    return Told(runner, ran, {stage: _word(runner, stage) for stage in STAGES})


def _with_aws(environment: Any) -> Any:
    return lambda runner: environment(runner) | {"AWS_SECRET_ACCESS_KEY": "AWS-SECRET"}


def _word(runner: Runner, stage: str) -> dict[str, Any]:
    (path,) = runner.work.rglob(f"witness-{stage}.json")
    word: dict[str, Any] = json.loads(path.read_text())
    return word


def test_each_room_has_what_it_needs_and_nothing_else(told: Told) -> None:
    require_network(told)
    require_credentials(told)
    require_privileges(told)
    require_read_only(told)
    require_mounts(told)


def require_network(told: Told) -> None:
    assert told.rooms["assess"]["interfaces"] == ["lo"]
    # The witness can tell: the other two do reach the same address.
    assert {stage: told.rooms[stage]["reached"] for stage in STAGES} == {
        "fetch": True, "assess": False, "publish": True,
    }  # fmt: skip


def require_credentials(told: Told) -> None:
    held = {
        stage: {secret for secret in SECRETS if any(secret in entry for entry in told.rooms[stage]["environment"])}
        for stage in STAGES
    }
    assert held == {
        "fetch": {"READ-SECRET", "AWS-SECRET"},
        "assess": set(),
        "publish": {"WRITE-SECRET", "AWS-SECRET"},
    }
    names = {entry.partition("=")[0] for entry in told.rooms["assess"]["environment"]}
    assert not [name for name in names if name.startswith(("MLFLOW", "GITHUB", "ACTIONS", "AWS", "RUNNER", "DOCKER"))]
    for secret in ("READ-SECRET", "WRITE-SECRET", "AWS-SECRET"):
        assert secret not in told.ran.log.replace(f"::add-mask::{secret}", "")


def require_privileges(told: Told) -> None:
    for stage in STAGES:
        room = told.rooms[stage]
        assert {room["status"][name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {"0" * 16}, stage
        assert (room["status"]["NoNewPrivs"], room["status"]["Seccomp"]) == ("1", "2"), stage
        assert room["user"] == [USER, USER, [USER]] or room["user"] == [USER, USER, []], stage
        assert room["sockets"] == []
        assert not [name for name in room["devices"] if name.startswith(("sd", "vd", "nvme", "kvm", "mem", "nvidia"))]


def require_read_only(told: Told) -> None:
    refused = {
        stage: {path for path, why in told.rooms[stage]["refused"].items() if why and "No such" not in why}
        for stage in STAGES
    }
    system = {"/new", "/etc/passwd", "/opt/quantguard/new", "/usr/bin/new", "policies/policy.yaml"}
    weights = {"WORK/model/model.safetensors", "WORK/model/new"}
    assert refused["fetch"] == system
    assert refused["assess"] == system | weights | {"WORK/fetched.json", "WORK/job.json", "WORK/new"}
    assert refused["publish"] == system | weights | {"WORK/evidence/new", "WORK/hardened/new"}
    assert told.rooms["assess"]["refused"]["WORK/model/model.safetensors"] == "Read-only file system"


def require_mounts(told: Told) -> None:
    """Everything of the host that is mounted in assess: only what was asked, and no secret lies in it."""
    work, workspace = told.runner.work, told.runner.workspace
    targets = {Path(target) for _, target in told.rooms["assess"]["mounts"]}
    of_host = {target for target in targets if target.is_relative_to(told.runner.home)}
    assert of_host == {
        work, *(work / name for name in MEASURED),
        *(workspace / "policies" / name for name in ("policy.yaml", "probes.jsonl", "calibration.jsonl")),
    }  # fmt: skip
    given = [path for root in of_host for path in (root.rglob("*") if root.is_dir() else [root]) if path.is_file()]
    assert len(given) > 10
    own = {path for path in given if path.name.startswith("witness-")}  # they tell of the credentials of the others
    for path in set(given) - own:
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in content], path
    assert not [target for target in targets if target.name.endswith(".sock")]
