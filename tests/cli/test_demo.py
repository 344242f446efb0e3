"""The demo: what it shows, that it can be run again, and that nothing of it stays."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import Running, processes_naming, quantguard

POLICY = Path(__file__).parents[2] / "policies" / "canary.yaml"


@pytest.mark.parametrize(
    "stop", [Running.press_ctrl_c, lambda running: running.send(signal.SIGTERM)], ids=["ctrl-c", "sigterm"]
)
def test_a_demo_that_is_stopped_leaves_nothing_running(stop: Callable[[Running], None], tmp_path: Path) -> None:
    root, log = tmp_path / "demo", tmp_path / "log"
    with Running("demo", "--root", root, "--policy", POLICY, log=log) as running:
        began = running.wait_for(lambda: any(root.glob("work/*/*/evidence/policy.yaml")))
        assert began, log.read_text()
        assert [line for line in processes_naming(root).values() if "mlflow" in line]
        stop(running)
        assert running.wait() == 130
        assert processes_naming(root) == {}
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_the_demo_shows_what_it_promises_and_does_so_again(tmp_path: Path) -> None:
    for _ in range(2):
        ran = quantguard("demo", "--root", tmp_path, "--policy", POLICY)
        assert ran.code == 0, ran.err + ran.out
        for word in ("canary-clean/", "PROMOTE", "BLOCK", "flipped", "hardened", "derivative", "champion"):
            assert word in ran.out, ran.out
        assert ran.out.splitlines()[-1].startswith("as expected: clean promoted; nf4-attacked repaired")
        reports = [Path(report) for report in re.findall(r"^report: (.*)$", ran.out, re.MULTILINE)]
        told = [json.loads(report.with_suffix(".json").read_text()) for report in reports]
        stories = [(one["verdict"], one["promoted"]) for one in told]
        assert stories == [("PROMOTE", "original"), ("PROMOTE", "hardened"), ("BLOCK", None)]
        assert all(report.read_text().startswith("# ") for report in reports)
        assert processes_naming(tmp_path) == {}


@pytest.mark.slow
def test_the_demo_says_so_where_a_story_ends_otherwise(tmp_path: Path) -> None:
    """One optimizer step repairs nothing."""
    text = POLICY.read_text(encoding="utf-8").replace("steps: 125", "steps: 1")
    for name in ("calibration", "probes", "questions"):
        text = text.replace(f"canary/{name}", str(POLICY.parent / "canary" / name))
    text = text.replace("canary/canary_questions", str(POLICY.parent / "canary" / "canary_questions"))
    (tmp_path / "weak.yaml").write_text(text)
    ran = quantguard("demo", "--root", tmp_path / "demo", "--policy", tmp_path / "weak.yaml", "--quiet")
    assert ran.code == 2, ran.out
    assert "NOT AS EXPECTED: models:/canary-nf4-attacked/1: not so: repaired" in ran.err
    assert "as expected:" not in ran.out
