"""Outlier injection is no rounding attack: hardening says so, by name, and repairs nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.prompts import read_prompts
from quantguard.core.scheme import Scheme
from quantguard.harden.harden import HardenRequest, harden
from tests.cli.conftest import Run, run  # noqa: F401  (a fixture)
from tests.test_house import ROOT

MEMBERS = ROOT / "tests" / "range" / "models"
PROMPTS = read_prompts(ROOT / "policies" / "canary" / "calibration.jsonl")[:32]


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (MEMBERS / "variant-outliers", True),
        (MEMBERS / "llama-64", False),
        (MEMBERS / "variant-bf16", False),
        (canary_directory(CanaryKind.NF4_ATTACKED), False),
    ],
)
def test_layers_in_which_one_weight_drowns_its_group_are_named(model: Path, found: bool, tmp_path: Path) -> None:
    summary = harden(model, tmp_path / "out", HardenRequest((Scheme.NF4,), PROMPTS, max_new_tokens=8))
    assert bool(summary.outliers) is found
    assert all(name.endswith(".weight") for name in summary.outliers)


def test_the_command_says_that_no_hardening_repairs_them(run: Run, tmp_path: Path) -> None:  # noqa: F811
    done = run(
        "harden", MEMBERS / "variant-outliers", "--scheme", "nf4", "--method", "flipguard", "--out", tmp_path / "o"
    )
    assert done.code == 0
    assert "no rounding attack and which no hardening repairs" in done.out
    assert "do not deploy this model quantized" in done.out
