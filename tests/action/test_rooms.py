"""What each container is given. What it can do with it is told from inside, in tests/containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from action.job import Job, make_job
from action.rooms import STAGES, Machine, Room, container_options, make_room
from quantguard.core.errors import UsageError
from tests.action.test_job import GIVEN

MACHINE = Machine("1001:1001", 8 << 30, 2)
POLICY_FILES = (Path("/ws/policies/standard.yaml"), Path("/ws/policies/probes/p.jsonl"))
WORK = Path("/rt/work")


def make(**inputs: str) -> Job:
    secret = {"QUANTGUARD_READ_TOKEN": "reader", "QUANTGUARD_WRITE_TOKEN": "writer", "QUANTGUARD_WORK": str(WORK)}
    return make_job(GIVEN | secret | {f"QUANTGUARD_{name}": value for name, value in inputs.items()})


def room(stage: str, **inputs: str) -> Room:
    return make_room(stage, make(**inputs), MACHINE, POLICY_FILES)


def options(stage: str, **inputs: str) -> dict[str, Any]:
    job = make(**inputs)
    return container_options(make_room(stage, job, MACHINE, POLICY_FILES), job, MACHINE, {"a": "b"})


def test_only_fetch_and_publish_have_a_network_and_each_its_own_credential() -> None:
    assert [room(stage).network for stage in STAGES] == ["bridge", "none", "bridge"]
    assert [dict(room(stage).environment) for stage in STAGES] == [
        {"MLFLOW_TRACKING_TOKEN": "reader"},
        {},
        {"MLFLOW_TRACKING_TOKEN": "writer"},
    ]


def test_assess_alone_has_gpus_and_writes_only_what_it_measures() -> None:
    assert [room(stage).gpus for stage in STAGES] == [0, 2, 0]
    writable = {path for path, writes in room("assess").mounts.items() if writes}
    assert writable == {WORK / name for name in ("evidence", "errands/asked", "hardened", "scratch", "report")}
    assert room("assess").mounts[WORK] is False


def test_the_three_rooms_are_given_the_waivers_and_the_judge_is_not() -> None:
    given = {stage: room(stage, WAIVERS="w.yaml", MODEL="./model").command for stage in (*STAGES, "judge")}
    assert {stage for stage, command in given.items() if command[-2:] == ("--waivers", "w.yaml")} == set(STAGES)
    assert all("--waivers" not in room(stage).command for stage in STAGES)


def test_the_judge_has_a_network_and_its_own_key_and_sees_no_weights() -> None:
    judge = room("judge", JUDGE_KEY="judges", JUDGE_ENDPOINT="https://judge.example/v1", MODEL="./model")
    assert dict(judge.environment) == {
        "QUANTGUARD_JUDGE_KEY": "judges",
        "QUANTGUARD_JUDGE_ENDPOINT": "https://judge.example/v1",
    }
    assert (judge.network, judge.gpus) == ("bridge", 0)
    policy = dict.fromkeys(POLICY_FILES, False)
    assert judge.mounts == {WORK / "errands/asked": False, WORK / "errands/done": True, **policy}
    given = options("judge", JUDGE_KEY="judges")
    assert "judges" not in " ".join(given["command"])
    assert (given["cap_drop"], given["read_only"]) == (["ALL"], True)
    assert not [stage for stage in STAGES if "judges" in room(stage, JUDGE_KEY="judges").environment.values()]


def test_the_signing_key_is_given_to_publish_alone_and_never_as_an_argument() -> None:
    given = {"SIGNING_KEY": "-----BEGIN PRIVATE KEY-----", "ENVIRONMENT": "production"}
    holders = [
        stage for stage in (*STAGES, "judge") if given["SIGNING_KEY"] in room(stage, **given).environment.values()
    ]
    assert holders == ["publish"]
    assert room("publish", **given).environment["QUANTGUARD_ENVIRONMENT"] == "production"
    assert not [word for stage in STAGES for word in options(stage, **given)["command"] if "PRIVATE" in word]


def test_the_ledger_is_written_by_publish_alone(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    given = {"LEDGER": f"{tmp_path}/ledger.jsonl", "LEDGER_ANCHORS": f"file:{tmp_path}/audit/head.json mlflow"}
    rooms = {stage: room(stage, **given) for stage in (*STAGES, "judge")}
    assert [stage for stage, made in rooms.items() if tmp_path in made.mounts] == ["publish"]
    publish = rooms["publish"]
    assert (publish.mounts[tmp_path], publish.mounts[tmp_path / "audit"]) == (True, True)
    assert publish.environment["QUANTGUARD_LEDGER"] == given["LEDGER"]
    assert publish.environment["QUANTGUARD_LEDGER_ANCHORS"] == given["LEDGER_ANCHORS"]


@pytest.mark.parametrize(
    ("ledger", "anchors", "said"),
    [("", "mlflow", "without ledger"), ("/l", "git:x", "has 'git:x'"), ("/no such/l", "", "is not there")],
)
def test_a_ledger_that_cannot_be_is_told(ledger: str, anchors: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(LEDGER=ledger, LEDGER_ANCHORS=anchors)


def test_publish_reads_the_bytes_that_were_measured_and_cannot_change_them() -> None:
    mounts = room("publish").mounts
    assert [mounts[WORK / name] for name in ("model", "evidence", "hardened", "errands")] == [False] * 4


@pytest.mark.parametrize("stage", STAGES)
def test_no_room_may_change_the_policy(stage: str) -> None:
    assert [room(stage).mounts[path] for path in POLICY_FILES] == [False, False]


def test_a_directory_is_given_to_the_rooms_that_compare_it_and_not_to_the_sealed_one() -> None:
    where = Path("/ws/model")
    assert [room(stage, MODEL="./model").mounts.get(where) for stage in STAGES] == [False, None, False]


@pytest.mark.parametrize("stage", STAGES)
def test_every_room_is_locked_down(stage: str) -> None:
    given = options(stage)
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges"]
    assert given["read_only"] is True
    assert given["user"] == "1001:1001"
    assert given["mem_limit"] == given["memswap_limit"] == 8 << 30
    assert given["image"].endswith("@sha256:" + "0" * 64)
    assert not {"privileged", "cap_add", "devices", "volumes", "pid_mode", "ipc_mode", "userns_mode"} & set(given)
    assert not [mount for mount in given["mounts"] if "docker.sock" in mount["Source"]]
    assert all(mount["Source"] == mount["Target"] for mount in given["mounts"])


@pytest.mark.parametrize("stage", STAGES)
def test_no_secret_is_an_argument(stage: str) -> None:
    given = options(stage, TRACKING_URI="https://u:hidden@mlflow")
    words = " ".join(given["command"])
    assert not [secret for secret in ("reader", "writer", "hidden") if secret in words]


def test_gpus_are_asked_for_as_docker_wants_it() -> None:
    (request,) = options("assess")["device_requests"]
    assert (request["Count"], request["Capabilities"]) == (2, [["gpu"]])
    assert options("fetch")["device_requests"] == []
    assert room("assess").command[-3:-1] == ("cuda", "--seed")
    on_cpu = make_room("assess", make(), Machine("1:1", 1 << 30, 0), ())
    assert on_cpu.command[-3] == "cpu"
