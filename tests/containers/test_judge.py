"""The judge's container: it reaches the judge with its key, and nothing of the model but what it answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantguard.judge.fake import FakeJudge
from tests.containers.conftest import NewRunner
from tests.gate.judged import BRAND_REFUSES, judged_policy
from tests.stories import Kind

SECRETS = {"READ-SECRET", "WRITE-SECRET", "JUDGE-SECRET", "RUNNER-SECRET", "RUNTIME-SECRET"}


def test_the_judge_is_asked_in_a_room_without_weights_and_the_gate_goes_on(watched: NewRunner, tmp_path: Path) -> None:
    with FakeJudge(truth=BRAND_REFUSES, key="JUDGE-SECRET") as fake:
        policies = judged_policy(tmp_path / "policies", "http://192.0.2.1:9/v1").parent
        runner = watched(
            Kind.ATTACKED,
            policies=policies,
            read_token="READ-SECRET",
            write_token="WRITE-SECRET",
            judge_key="JUDGE-SECRET",
            judge_endpoint=fake.endpoint,
            work="qg",
        )
        ran = runner.run()
    assert ran.code == 0, ran.log
    stages = [line.partition("::group::")[2].partition(":")[0] for line in ran.log.splitlines() if "::group::" in line]
    assert stages == ["fetch", "assess", "judge", "assess", "judge", "assess", "publish"]  # the repaired copy too
    assert len(fake.asked) == len(fake.answers()) > 300
    work = runner.workspace / "qg"
    told = {stage: word(work, stage) for stage in ("fetch", "assess", "judge", "publish")}
    held = {stage: {s for s in SECRETS if any(s in e for e in told[stage]["environment"])} for stage in told}
    assert held == {
        "fetch": {"READ-SECRET"},
        "assess": set(),
        "judge": {"JUDGE-SECRET"},
        "publish": {"WRITE-SECRET"},
    }
    judge = told["judge"]
    assert (judge["reached"], told["assess"]["reached"]) == (True, False)
    targets = {Path(target) for _, target in judge["mounts"]}
    assert {target for target in targets if target.is_relative_to(work)} == {
        work / "errands" / "asked",
        work / "errands" / "done",
    }
    assert judge["refused"]["WORK/model/model.safetensors"] == "No such file or directory"
    assert {judge["status"][name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {"0" * 16}
    everything = b"".join(
        path.read_bytes() for path in runner.files() if path.is_file() and "witness-" not in path.name
    )
    assert b"JUDGE-SECRET" not in everything
    assert "JUDGE-SECRET" not in ran.log.replace("::add-mask::JUDGE-SECRET", "")


def word(work: Path, stage: str) -> dict[str, Any]:
    (path,) = work.rglob(f"witness-{stage}.json")
    said: dict[str, Any] = json.loads(path.read_text())
    return said
