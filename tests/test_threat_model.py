"""The threat model names only tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_threat_model_names_is_there() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    stopped = text.partition("## Stopped")[2].partition("## Not stopped")[0]
    rows = [line for line in stopped.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`", row)
        assert named, f"no test is named for {row}"
        assert [name for name in named if not (ROOT / name).is_file()] == []
