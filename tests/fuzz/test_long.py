"""What `make test-all` adds: a hundred thousand hostile directories, and a minute of coverage guidance a file."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INPUTS = 100_000
SECONDS = 60  # of coverage guidance, each
COVERED = ("headers", "indexes", "configs", "tokenizers", "templates", "orders")


def _run(module: str, *arguments: str) -> str:
    """Both streams of a run that ended well.

    Raises:
        AssertionError: it did not; with the end of what it said.
    """
    command = [sys.executable, "-m", f"tests.fuzz.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
def test_a_hundred_thousand_hostile_directories_keep_the_law(tmp_path: Path) -> None:
    said = _run("run", "--inputs", str(INPUTS), "--seed", "0", "--jobs", "2", "--kept", str(tmp_path / "kept"))
    row = re.search(r"^all +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) ", said, re.MULTILINE)
    assert row is not None, said
    inputs, results, errors, breaches, outside = map(int, row.groups())
    assert inputs == results + errors >= INPUTS
    assert min(results, errors) > INPUTS // 10, "one door is all that is fuzzed"
    assert (breaches, outside) == (0, 0)
    assert not (tmp_path / "kept").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has wheels for Linux on x86-64 only")
@pytest.mark.parametrize("name", COVERED)
def test_coverage_guidance_finds_no_way_either(tmp_path: Path, name: str) -> None:
    said = _run("coverage", name, str(tmp_path), f"-max_total_time={SECONDS}")
    counted = re.search(r"^stat::number_of_executed_units: +(\d+)$", said, re.MULTILINE)
    assert counted is not None, said[-4000:]
    assert int(counted[1]) > 1000
    assert re.search(r"cov: [1-9]", said), "nothing was instrumented"
