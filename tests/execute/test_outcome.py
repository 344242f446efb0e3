"""What a container wrote is read as untrusted: it fits the errand, or nothing is concluded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantguard.core.errand import Errand, ErrandKind, ErrandOutcome
from quantguard.core.errors import MachineError
from quantguard.evidence.errands import Errands
from quantguard.execute import errands as room
from quantguard.execute.__main__ import answer
from quantguard.execute.container import COMMAND, command, find_engine, run_container
from quantguard.verify.code_tasks import SETTINGS

ERRAND = Errand(ErrandKind.EXECUTE, "sums nf4", SETTINGS, (("x = 1", "f", "", "assert f()"),) * 2)
PASSED = {"word": "passed", "note": ""}


def outcome(**changed: Any) -> bytes:
    body = {"errand": "sha256:aa", "replies": [PASSED, PASSED], "problem": ""} | changed
    return json.dumps({"schema": "quantguard.errand-outcome/1", "inputs": "sha256:aa", "body": body}).encode()


def test_an_outcome_that_fits_is_read() -> None:
    assert [reply.word for reply in room.read_outcome(outcome(), "sha256:aa", ERRAND).replies] == ["passed"] * 2


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        outcome()[:-2],
        outcome(errand="sha256:bb"),
        outcome(replies=[PASSED]),
        outcome(replies=[PASSED] * 3),
        outcome(replies=[PASSED, {"word": "yes", "note": ""}]),
        outcome(replies=[PASSED, {"word": "passed", "note": "x" * 501}]),
        outcome(replies=[PASSED, {"word": "passed"}, {}]),
        outcome(more=1),
        outcome(problem="none", replies=[PASSED, PASSED]),
    ],
    ids=range(13),
)
def test_an_outcome_that_does_not_fit_is_no_outcome(said: bytes) -> None:
    with pytest.raises(MachineError, match="what the container wrote"):
        room.read_outcome(said, "sha256:aa", ERRAND)


@pytest.mark.parametrize("asked", [b"", b"{}", b"[1]", b'{"inputs": "a", "body": {"items": [["x"]], "settings": []}}'])
def test_what_cannot_be_read_is_not_run(asked: bytes) -> None:
    assert "cannot be read" in answer(asked)["body"]["problem"]


def test_outside_a_container_nothing_is_run() -> None:
    body = {"items": [["open('/tmp/ran', 'w')", "f", "", "f()"]], "settings": [["seconds", "1"], ["mebibytes", "64"]]}
    said = answer(json.dumps({"inputs": "sha256:aa", "body": body}).encode())["body"]
    assert said["replies"] == []
    assert "in a sealed container only, and here" in said["problem"]


def test_without_an_engine_or_an_image_the_errand_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errands = Errands(tmp_path)
    digest = errands.ask(ERRAND)
    (problem,) = room.execute_errands(errands, "")
    assert "QUANTGUARD_EXECUTOR_IMAGE" in problem
    monkeypatch.setenv("PATH", str(tmp_path))
    (problem,) = room.execute_errands(errands, "image")
    assert "neither docker nor podman is on PATH (install one of them" in problem
    assert getattr(errands.answered(digest), "reason", "") == problem


def test_the_container_gets_nothing_and_can_reach_nothing() -> None:
    words = command("docker", "image@sha256:aa", "name")
    assert words[-4:] == ("image@sha256:aa", *COMMAND)
    wanted = "--network none", "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--pids-limit"
    for option in (*wanted, "--user 65532:65532", "--memory ", "--pull never", "--entrypoint python3"):
        assert option in " ".join(words)
    assert not {"--volume", "-v", "--mount", "--env", "-e", "--env-file", "--privileged"} & set(words)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sleep 60", "took more than 1 seconds"),
        ("echo one >&2; echo no such image >&2; exit 125", "no such image"),
        ("exit 3", "failed: 3"),
    ],
)
def test_an_engine_that_fails_is_told(script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\n[ $1 = rm ] && exit 0\n{script}\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(MachineError, match=said):
        run_container(b"{}", image="image", engine=find_engine(), seconds=1)


def test_every_reply_is_a_word_of_the_kind() -> None:
    assert ErrandOutcome("sha256:aa", ()).misfit(ERRAND, "sha256:aa") == "0 replies to 2 questions"
    assert ErrandKind.EXECUTE.words == {"passed", "failed", "timeout", "broken"}
