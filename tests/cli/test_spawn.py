"""How the rooms are started: what stands on a command line is there for every user of the machine to read."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantguard.cli import gate
from quantguard.gate.work import Work, make_job
from quantguard.policy.load import load_policy

POLICY = Path(__file__).parents[2] / "policies" / "canary.yaml"
URI = "http://user:pa55word@127.0.0.1:9"


def test_the_registrys_password_is_in_no_command_and_not_in_the_sealed_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Sequence[str], Mapping[str, str]]] = []

    def start(command: Sequence[str], *, check: bool, env: Mapping[str, str]) -> SimpleNamespace:
        started.append((command, env))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", start)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    monkeypatch.setenv("QUANTGUARD_JUDGE_KEY", "judge-5ecret")
    policy = load_policy(POLICY)
    work = Work(tmp_path, make_job("models:/m/1", policy, seed=0), policy)
    asked = gate.Asked("models:/m/1", POLICY, URI, "cpu", 0, False)
    for stage in gate.Stage:
        gate._spawn(stage, work, asked)
    assert not [command for command, _ in started if "pa55word" in " ".join(command)]
    holds = dict(zip(gate.Stage, (set(environment.values()) for _, environment in started), strict=True))
    assert {stage for stage in gate.Stage if URI in holds[stage]} == {gate.Stage.FETCH, gate.Stage.PUBLISH}
    assert {stage for stage in gate.Stage if "judge-5ecret" in holds[stage]} == {gate.Stage.JUDGE}
    assert not [command for command, _ in started if "5ecret" in " ".join(command)]
