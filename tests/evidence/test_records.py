"""What is read back is what was written: nothing more, nothing else, but what an older version did not know yet."""

from __future__ import annotations

from typing import Any

import pytest

from quantguard.core.errors import EvidenceError
from quantguard.core.hardening import HardeningSummary
from quantguard.evidence.records import from_plain, to_plain
from tests.report.made import HARDENING


def plain() -> dict[str, Any]:
    told: dict[str, Any] = to_plain(HardeningSummary, HARDENING)
    return told


def test_a_record_comes_back() -> None:
    assert from_plain(HardeningSummary, plain()) == HARDENING


def test_a_record_from_before_a_field_was_there_has_its_default() -> None:
    old = {key: value for key, value in plain().items() if key not in {"calibration", "positions", "untouched"}}
    read = from_plain(HardeningSummary, old)
    assert (read.calibration, read.positions, read.untouched) == (None, (), ())
    assert read.flipped_share == HARDENING.flipped_share


@pytest.mark.parametrize(
    "change",
    [
        {"comment": "x"},
        {"steps": "125"},
        {"seconds": None},
        {"calibration": {"source": "neutral/1", "count": 607, "digest": "sha256:cc", "more": 1}},
        {"calibration": {"source": "neutral/1", "count": 607}},
        {"losses": [["kl"]]},
    ],
    ids=str,
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="this is not a HardeningSummary"):
        from_plain(HardeningSummary, plain() | change)
