"""How far a command is: steps as they are, bytes in a unit that people read."""

from __future__ import annotations

import os
import pty
import sys
from contextlib import suppress

import pytest

from quantguard.cli.progress import amount, progress_shown


@pytest.mark.parametrize(
    ("stage", "done", "total", "said"),
    [
        ("measure", 3, 7, "3 of 7"),
        ("scan, bytes", 0, 0, "0 of 0 bytes"),
        ("scan, bytes", 1, 999, "1 of 999 bytes"),
        ("scan, bytes", 999, 1000, "1.0 of 1.0 kB"),
        ("scan, bytes", 5, 999_949, "0.0 of 999.9 kB"),
        ("scan, bytes", 5, 999_950, "0.0 of 1.0 MB"),
        ("scan, bytes", 1_234_567_890, 3_400_000_000, "1.2 of 3.4 GB"),
        ("scan, bytes", 0, 2 * 1000**5, "0.0 of 2000.0 TB"),
    ],
)
def test_an_amount_is_read_at_a_glance(stage: str, done: int, total: int, said: str) -> None:
    assert amount(stage, done, total) == said


def test_a_log_has_a_line_that_names_the_stage_and_the_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown(quiet=False) as progress:
        progress("scan, bytes", 2_500_000, 2_500_000, "lm_head\x1b.weight")
    assert capsys.readouterr().err == "scan: 2.5 of 2.5 MB lm_head\\x1b.weight\n"


def test_bars_show_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        with progress_shown(quiet=False) as progress:
            progress("scan, bytes", 1_200_000_000, 3_400_000_000, "model.layers.0")
            progress("measure", 1, 4)
        terminal.flush()
        os.set_blocking(ours, False)
        shown = b""
        with suppress(BlockingIOError):
            while part := os.read(ours, 1 << 16):
                shown += part
    os.close(ours)
    assert b"1.2 of 3.4 GB" in shown
    assert b"1 of 4" in shown
    assert b"bytes" not in shown
