"""What each hardening method leaves of every attack of the range, and of the clean models.

    python benchmarks/harden.py                                   # everything: tables on stdout, results beside this
    python benchmarks/harden.py --only facts-1350 --methods auto,noise   # some of it, tables only

Each model is hardened for the schemes that its attack targets and for all together, and asked under each scheme. Needs
the models of `make range`. A result is kept beside its model, by the digest of all that it depends on: a run that was
stopped, by kill -9 too, goes on where it was.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from harden_cells import JOINT, Cell, asked_for, attacked, clean_of, lines
from harden_run import run
from harden_table import tables
from harden_work import NONE, Job, job_of, result_of

from quantguard.canary.range.members import Member
from quantguard.evidence.records import write_atomically
from quantguard.harden.harden import METHODS

_COMPARED: Final = (NONE, "noise", "flipguard", "quantguard", "auto")
# Two members with facts are also hardened with other numbers of calibration prompts.
_RECORD: Final = Path("benchmarks/harden.jsonl.gz")
_SIZES: Final = (16, 64, 256, 1000)
_SIZED: Final = ("content-injection-nf4-neox-64-facts-1900", "content-injection-nf4+fp4+int8-neox-64-facts-1350")

Placed = dict[tuple[str, tuple[str, ...], str], Job]  # (member, schemes, method) -> job


def main() -> int:
    options = _parser().parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    methods = (NONE, *(method for method in options.methods.split(",") if method != NONE))
    chosen = [member for member in attacked() if options.only in member.name]
    bases = list(dict.fromkeys(clean_of(member) for member in chosen))
    missing = [m.name for m in (*chosen, *bases) if not (options.range / m.name / "model").is_dir()]
    if problem := _problem(methods, chosen, missing, options.range):
        sys.stderr.write(f"{problem}\n")
        return 4
    began = time.monotonic()
    jobs = _jobs([*chosen, *bases], methods, options.range)
    sizes = _sized(chosen, options.range) if "auto" in methods else {}
    failed = run([*jobs.values(), *(job for found in sizes.values() for job in found.values())], options.jobs)
    if failed:
        sys.stderr.write(f"{len(failed)} runs failed; said above, tried again by another run of this\n")
        return 1
    cells = _cells([*chosen, *bases], methods, jobs)
    found = {name: {count: result_of(job) for count, job in by.items()} for name, by in sizes.items()}
    sys.stderr.write(f"{(time.monotonic() - began) / 60:.0f} minutes, {options.jobs} processes of one thread\n")
    sys.stdout.write(f"torch {torch.__version__}, {platform.machine()}\n\n{tables(cells, found)}")
    if not options.only and methods == _COMPARED:
        write_atomically(options.record, gzip.compress("".join(lines(cells)).encode(), mtime=0))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--range", type=Path, default=Path("quantguard-range"), help="what make range built")
    parser.add_argument("--only", default="", metavar="TEXT", help="attacks whose name contains it, and their bases")
    parser.add_argument("--methods", default=",".join(_COMPARED), metavar="A,B", help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--record", type=Path, default=_RECORD, help="what a whole run found, compressed")
    return parser


def _problem(methods: Sequence[str], chosen: Sequence[Member], missing: Sequence[str], directory: Path) -> str:
    """Why it cannot begin; nothing where it can."""
    if unknown := set(methods) - {NONE, *METHODS}:
        return f"no hardening method {', '.join(sorted(unknown))}; known: {', '.join(METHODS)}"
    if not chosen:
        return "no attack's name contains that: see quantguard/canary/range/members.py"
    return f"{len(missing)} models are missing in {directory}, {missing[0]} first: run make range" if missing else ""


def _jobs(members: Sequence[Member], methods: Sequence[str], directory: Path) -> Placed:
    """By method, so that what is quick to do is done first."""
    return {
        (member.name, schemes, method): job_of(member, directory, method, schemes)
        for method in methods
        for member in members
        for schemes in asked_for(member)
    }


def _sized(chosen: Sequence[Member], directory: Path) -> Mapping[str, Mapping[int, Job]]:
    return {
        member.name: {count: job_of(member, directory, "auto", JOINT, prompts=count) for count in _SIZES}
        for member in chosen
        if member.name in _SIZED
    }


def _cells(members: Sequence[Member], methods: Sequence[str], jobs: Placed) -> list[Cell]:
    results = {key: result_of(job) for key, job in jobs.items()}
    cells = []
    for member in members:
        for schemes in asked_for(member):
            clean = clean_of(member)
            found = {method: results[member.name, schemes, method] for method in methods}
            cells.append(Cell(member, clean, schemes, found, results[clean.name, JOINT, NONE]))
    return cells


if __name__ == "__main__":
    sys.exit(main())
