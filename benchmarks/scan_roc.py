"""How well the scan tells prepared checkpoints from honest ones: ROC, alarms at the shipped thresholds, power.

    python benchmarks/scan_roc.py                 # tables on stdout, pictures and results beside the docs
    python benchmarks/scan_roc.py --quick         # a few checkpoints of each set, nothing written

Scans every member of the range (`make range`) and checkpoints that it makes and removes, each with seed 0.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import torch
from scan_bases import DTYPES, MINILM, PRETRAINED
from scan_cases import MIDDLE, SCHEMES, a_few, every_case
from scan_run import Results, record, run
from scan_stats import curve
from scan_svg import Axis, Panel, Series, picture
from scan_tables import GRIDS, scores, strengths, tables

from quantguard.canary.range.manifest import read_rows
from quantguard.core.errors import QuantGuardError

_SHARE = Axis(0.001, 0.3, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), "share of the weights that are prepared", True)
_STRENGTH = Axis(0.1, 20, (0.1, 0.3, 1, 3, 10), "strength (1: the thresholds)", True)


def main() -> int:
    options = _parser().parse_args()
    try:
        rows = read_rows(options.range / "manifest.jsonl")
    except QuantGuardError as error:
        sys.stderr.write(f"no range at {options.range}: run make range first, or give --range\n{error}\n")
        return 4
    missing = [row.name for row in rows if not (options.range / row.name / "model").is_dir()]
    if missing or PRETRAINED not in {row.name for row in rows}:
        sys.stderr.write(f"{len(missing) or PRETRAINED} missing in {options.range}: run make range\n")
        return 4
    began = time.monotonic()
    wanted = [row for row in rows if PRETRAINED in row.name][:1] + list(rows[:4]) if options.quick else list(rows)
    results = run(wanted, a_few() if options.quick else every_case(), options.range.resolve(), options.jobs)
    scans = len(results.members) + sum(len(seen) for _, seen in results.cases)
    took = (time.monotonic() - began) / 60
    sys.stdout.write(
        f"`python benchmarks/scan_roc.py{' --quick' if options.quick else ''}`: {scans} scans in {took:.0f} minutes,"
        f" {options.jobs} processes of one thread; torch {torch.__version__}, {platform.machine()}\n\n{tables(results)}"
    )
    if not options.quick:
        options.images.mkdir(parents=True, exist_ok=True)
        (options.images / "scan-roc.svg").write_text(_roc(results), encoding="utf-8")
        (options.images / "scan-power.svg").write_text(_power(results), encoding="utf-8")
        record(results, options.record)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--range", type=Path, default=Path("quantguard-range"), help="what make range built")
    parser.add_argument("--images", type=Path, default=Path("docs/images"), help="where the pictures go")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/scan_roc.jsonl.gz"), help="what each scan said")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--quick", action="store_true", help="a few checkpoints, tables only")
    return parser


def _roc(results: Results) -> str:
    """Curves by grid, and every score that they are drawn from."""
    grids = ("", *GRIDS)
    lines = []
    for number, grid in enumerate(grids):
        attacked, benign = scores(results, grid)
        if attacked and benign:
            lines.append(Series(GRIDS.get(grid, "any"), tuple(curve(attacked, benign)), (number + 4) % 5))
    rate = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    axes = Axis(0, 1, rate, "benign members over the threshold"), Axis(0, 1, rate, "attacked members over it")
    left = Panel("ROC, members of the range", *axes, tuple(lines))
    dots: list[Series] = []
    names: list[str] = []
    for number, grid in enumerate(grids):
        for score, colour in zip(scores(results, grid), (1, 0), strict=True):
            row = len(names)
            points = tuple((max(0.1, s), row + 0.3 * _apart(i)) for i, s in enumerate(sorted(score)))
            legend = ("attacked" if colour else "benign") if number == 0 else ""
            dots.append(Series(legend, points, colour, dots=True))
            names.append(GRIDS.get(grid, "any") if colour else "")
    right = Panel(
        "Every score", _STRENGTH, Axis(-0.6, len(names) - 0.4, (), ""), tuple(dots), limit=1.0, rows=tuple(names)
    )
    return picture("ROC curves of the scan over the range, and every member's score", [left, right], 2)


def _apart(place: int) -> float:
    """-1, 0 or 1 in turn, so that dots at one score stay apart."""
    return place % 3 - 1


def _power(results: Results) -> str:
    """Median strength by share: pretrained above, sixteen random weights below."""
    panels = []
    for base in (MINILM, MIDDLE):
        for target in SCHEMES:
            lines = tuple(
                Series(dtype, tuple(strengths(results, base, target, dtype)), number)
                for number, dtype in enumerate(DTYPES)
            )
            title = f"{GRIDS[target]}, {'MiniLM' if base is MINILM else '16 random weights'}"
            panels.append(Panel(title, _SHARE, _STRENGTH, tuple(line for line in lines if line.points), limit=1.0))
    return picture("Strength of the scan's evidence by the share of weights that are prepared", panels, 3)


if __name__ == "__main__":
    sys.exit(main())
