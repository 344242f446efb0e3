"""Scans side by side in processes, with progress, and what they said in a file."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from scan_work import Case, Seen, scan_case, scan_member

from quantguard.canary.range.manifest import Row

_TELL = 15.0  # seconds between two lines of progress


@dataclass(frozen=True, slots=True)
class Results:
    members: tuple[tuple[Row, Seen], ...]  # of the range, in its order
    cases: tuple[tuple[Case, tuple[Seen, ...]], ...]  # in the order of the cases

    def group(self, name: str) -> list[tuple[Case, tuple[Seen, ...]]]:
        return [(case, seen) for case, seen in self.cases if case.group == name]

    def single(self, name: str) -> list[tuple[Case, Seen]]:
        """Of a group of one scan each."""
        return [(case, seen[0]) for case, seen in self.group(name)]

    def kind(self, *kinds: str) -> list[tuple[Row, Seen]]:
        return [(row, seen) for row, seen in self.members if row.kind in kinds]


def run(rows: Sequence[Row], cases: Sequence[Case], directory: Path, processes: int) -> Results:
    """Scan every member and every case."""
    context = multiprocessing.get_context("spawn")
    found: dict[int, tuple[Seen, ...]] = {}
    began = told = time.monotonic()
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        places: dict[Future[tuple[Seen, ...]], int] = {}
        for row in rows:
            places[pool.submit(scan_member, row, directory)] = len(places)
        for case in cases:
            places[pool.submit(scan_case, case, directory)] = len(places)
        for future in as_completed(places):
            found[places[future]] = future.result()
            if time.monotonic() - told > _TELL or len(found) == len(places):
                told = time.monotonic()
                scans = sum(len(seen) for seen in found.values())
                sys.stderr.write(f"[{len(found)}/{len(places)}, {(told - began) / 60:.1f} min] {scans} scans\n")
                sys.stderr.flush()
    members = tuple((row, found[place][0]) for place, row in enumerate(rows))
    return Results(members, tuple((case, found[len(rows) + place]) for place, case in enumerate(cases)))


def record(results: Results, path: Path) -> None:
    """One line a scan of the range, the hard and the fresh checkpoints, compressed."""
    lines = [(row.kind, seen) for row, seen in results.members]
    lines += [
        (case.group, s) for case, seen in results.cases if case.group.split()[0] in ("hard", "fresh") for s in seen
    ]
    path.write_bytes(gzip.compress("".join(_line(kind, seen) for kind, seen in lines).encode(), mtime=0))


def _line(kind: str, seen: Seen) -> str:
    said = {
        "name": seen.name,
        "kind": kind,
        "strengths": {grid: round(value, 3) for grid, value in seen.strengths},
        "alarms": [list(alarm) for alarm in seen.alarms],
        "remarks": [list(remark) for remark in seen.remarks],
        "tensors": seen.tensors,
    }
    return json.dumps(said, sort_keys=True) + "\n"
