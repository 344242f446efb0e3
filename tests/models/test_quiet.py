"""Rooms do not write to the terminal, and importing them is light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantguard.core.scheme import Scheme
from quantguard.models.generate import generate
from quantguard.models.load import load_model
from quantguard.models.safe_directory import rebuild
from tests import tiny


def test_loading_and_generating_write_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tiny.write_model(tmp_path / "source", {"one": "two"})
    capfd.readouterr()
    clean = rebuild(source, tmp_path / "clean")
    for scheme in (None, *Scheme):
        loaded = load_model(clean, scheme=scheme, device="cpu")
        assert generate(loaded, ["one"], max_new_tokens=4, batch_size=1) == ("two",)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "module", ["quantguard.models.load", "quantguard.models.safe_directory", "quantguard.verify.measure"]
)
def test_importing_the_room_loads_no_heavy_library(module: str) -> None:
    heavy = {"torch", "transformers", "bitsandbytes", "lm_eval", "datasets", "bandit"}
    code = f"import sys, {module}; print(*sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
