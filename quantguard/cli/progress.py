"""Progress on standard error: bars on a terminal, a line now and then elsewhere, nothing when quiet.

Text from outside is made safe to print here too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from quantguard.core.progress import Progress, silent

_EVERY = 5.0  # seconds between two lines of one stage in a log
_BYTES = ", bytes"  # how a stage ends that counts bytes, not steps
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def printable(text: str) -> str:
    """`text` with control characters escaped: messages quote names that an attacker chose."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def title(stage: str) -> str:
    """What a stage is called without what it counts."""
    return stage.removesuffix(_BYTES)


def amount(stage: str, done: int, total: int) -> str:
    """How far a stage is: `3 of 7`; of one that counts bytes, in the unit of the total: `1.2 of 3.4 GB`."""
    if not stage.endswith(_BYTES):
        return f"{done} of {total}"
    power = 0
    # 999,950 is "1.0 MB", not "1000.0 kB": the unit changes where rounding would show four digits.
    while power < len(_UNITS) - 1 and total >= 999.95 * 1000**power:
        power += 1
    if not power:
        return f"{done} of {total} bytes"
    return f"{done / 1000**power:.1f} of {total / 1000**power:.1f} {_UNITS[power]}"


@contextmanager
def progress_shown(*, quiet: bool) -> Iterator[Progress]:
    """A Progress that reports for as long as the context lasts."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        yield from _bars()
    else:
        yield _Lines()


def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def report(stage: str, done: int, total: int, detail: str = "") -> None:
            said = amount(stage, done, total)
            if stage not in tasks:
                tasks[stage] = bars.add_task(title(stage), total=total, detail=detail, amount=said)
            bars.update(tasks[stage], completed=done, total=total, detail=detail, amount=said)

        yield report


class _Lines:
    """One line when a stage starts to report, then every few seconds, and one when it is over."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if done < total and now - self._last.get(stage, 0.0) < _EVERY:
            return
        self._last[stage] = now
        sys.stderr.write(printable(f"{title(stage)}: {amount(stage, done, total)} {detail}".rstrip()) + "\n")
        sys.stderr.flush()
