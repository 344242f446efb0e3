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


def printable(text: str) -> str:
    """`text` with control characters escaped: messages quote names that an attacker chose."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


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
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def report(stage: str, done: int, total: int, detail: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, detail="")
            bars.update(tasks[stage], completed=done, total=total, detail=detail)

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
        sys.stderr.write(printable(f"{stage}: {done} of {total} {detail}".rstrip()) + "\n")
        sys.stderr.flush()
