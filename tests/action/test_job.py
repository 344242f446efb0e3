"""Inputs from the environment, and what is refused of them before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from action import job as jobs
from action.job import GIBIBYTE, Job, make_job, secrets_in
from quantguard.core.errors import UsageError

IMAGE = "ghcr.io/quantguard/quantguard@sha256:" + "0" * 64
GIVEN = {
    "QUANTGUARD_MODEL": "models:/assistant/3",
    "QUANTGUARD_POLICY": "policies/standard.yaml",
    "QUANTGUARD_IMAGE": IMAGE,
    "GITHUB_WORKSPACE": "/ws",
    "RUNNER_TEMP": "/rt",
}


def job(**inputs: str) -> Job:
    return make_job(GIVEN | {f"QUANTGUARD_{name}": value for name, value in inputs.items()})


def test_what_is_empty_has_its_default() -> None:
    one = job(GPUS=" ", DISK="", SEED="")
    assert (one.gpus, one.memory, one.disk, one.timeout, one.network, one.seed, one.kept) == (
        "auto", None, 20 * GIBIBYTE, 330 * 60, "bridge", 0, False,
    )  # fmt: skip
    assert one.work.parent == Path("/rt/quantguard")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL", ""), ("MODEL", "models:/assistant"), ("MODEL", "s3://bucket/x"), ("POLICY", ""),
        ("IMAGE", "ghcr.io/quantguard/quantguard:latest"), ("IMAGE", "x@sha256:" + "0" * 63),
        ("IMAGE", "--privileged@sha256:" + "0" * 64),
        ("GPUS", "two"), ("GPUS", "-1"), ("MEMORY", "lots"), ("MEMORY", "48 g"), ("DISK", "nan"), ("DISK", "-1"),
        ("TIMEOUT", "inf"), ("TIMEOUT", "1e3"), ("NETWORK", "container:other"), ("NETWORK", "--net"),
        ("SEED", "x"), ("REGISTRY_ENV", "NOT_SET_ANYWHERE"),
    ],
)  # fmt: skip
def test_an_input_that_means_nothing_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name.lower().replace("_", "-") if name != "MODEL" else "model"):
        job(**{name: value})


def test_a_checkout_that_is_no_release_asks_for_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "image.lock"
    monkeypatch.setattr(jobs, "IMAGE_LOCK", lock)
    with pytest.raises(UsageError, match="names no image"):
        job(IMAGE="")
    lock.write_text(IMAGE + "\n")
    assert job(IMAGE="").image == IMAGE


def test_each_room_that_asks_the_registry_has_its_own_credential() -> None:
    given = GIVEN | {
        "QUANTGUARD_TRACKING_URI": "https://u:in-the-address@mlflow:5000",
        "QUANTGUARD_READ_TOKEN": "reader",
        "QUANTGUARD_WRITE_TOKEN": "gate:pass:word",
        "QUANTGUARD_REGISTRY_ENV": "AWS_SECRET_ACCESS_KEY  CERT",
        "AWS_SECRET_ACCESS_KEY": "aws",
        "CERT": "-----BEGIN\nabcd\n-----END",
        "HF_TOKEN": "of nobody's business",
    }
    one = make_job(given)
    uri = {"MLFLOW_TRACKING_URI": "https://u:in-the-address@mlflow:5000"}
    further = {"AWS_SECRET_ACCESS_KEY": "aws", "CERT": "-----BEGIN\nabcd\n-----END"}
    assert one.read_environment == uri | further | {"MLFLOW_TRACKING_TOKEN": "reader"}
    basic = {"MLFLOW_TRACKING_USERNAME": "gate", "MLFLOW_TRACKING_PASSWORD": "pass:word"}
    assert one.write_environment == uri | further | basic
    assert {"reader", "gate:pass:word", "pass:word", "aws", "in-the-address", "abcd"} <= secrets_in(given)
    assert "" not in secrets_in(given)


def test_the_same_inputs_in_one_attempt_work_in_the_same_place_and_others_do_not() -> None:
    attempt = {"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_JOB": "gate"}
    places = [
        make_job(GIVEN | attempt | change).work
        for change in ({}, {}, {"QUANTGUARD_SEED": "1"}, {"GITHUB_RUN_ATTEMPT": "2"}, {"QUANTGUARD_MODEL": "./model"})
    ]
    assert places[0] == places[1]
    assert len(set(places)) == 4


def test_a_named_work_directory_is_kept_and_lies_in_the_workspace(tmp_path: Path) -> None:
    one = make_job(GIVEN | {"GITHUB_WORKSPACE": str(tmp_path), "QUANTGUARD_WORK": "qg"})
    assert (one.work, one.kept) == (tmp_path / "qg", True)


def test_a_directory_is_found_from_the_workspace() -> None:
    assert job(MODEL="./models/a").directory == Path("/ws/models/a")
    assert job(MODEL="/elsewhere/a").directory == Path("/elsewhere/a")
    assert job().directory is None
