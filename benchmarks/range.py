"""The whole range in one table: what every attacked and benign model does, and what three published defences leave.

    python benchmarks/range.py                      # build what is missing, measure, print the table
    python benchmarks/range.py --only variant-bf16  # and what it starts from
    python benchmarks/range.py --size large --device cuda
    python benchmarks/range.py --slice tests/range  # what is checked in for the fast tests

Everything is kept in --out by the digest of builder and arguments, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from range_table import table
from range_work import Done, Job, work

from quantguard.canary.range.manifest import Row, read_rows, row_text
from quantguard.canary.range.members import SLICE, Member, large_members, member_of, members
from quantguard.canary.range.recipes import Recipe, parents_of
from quantguard.core.errors import QuantGuardError, UsageError
from quantguard.evidence.records import write_atomically
from quantguard.models.device import resolve_device


def main() -> int:
    options = _parser().parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    manifest = options.out / "manifest.jsonl"
    try:
        wanted, device = _chosen(options), resolve_device(options.device)
        known = read_rows(manifest) if manifest.exists() else ()
    except QuantGuardError as error:
        sys.stderr.write(f"{error}\n")
        return 4
    jobs = {m.recipe: Job(m, options.out, not options.no_defences, device) for m in wanted}
    rows: dict[str, Row] = {}
    failed: list[tuple[str, str]] = []
    for finished in _run(jobs, options.jobs):
        if isinstance(finished, Done):
            rows[finished.name] = finished.row
            failed += [(finished.name, reason) for reason in finished.failures]
        else:
            failed.append(finished)
    ordered = [rows[m.name] for m in wanted if m.name in rows]
    _record(manifest, known, ordered)
    sys.stdout.write(table(ordered))
    if options.slice and not failed:
        _export([row for row in ordered if row.name in SLICE], options.out, options.slice)
    sys.stderr.write(f"{len(ordered)} of {len(wanted)} members; ground truth in {manifest}\n")
    for name, reason in failed:
        sys.stderr.write(f"not done: {name}: {reason}\n")
    return 1 if failed else 0


def _chosen(options: argparse.Namespace) -> list[Member]:
    """The members asked for, with what they start from.

    Raises:
        UsageError: there are none, or the options do not go together.
    """
    large = options.size == "large"
    if large and options.slice:
        raise UsageError("the slice is of the small size", remedy="leave --size or --slice out")
    if options.device != "cpu" and not large:
        raise UsageError("the small models are built on a CPU", remedy="add --size large, or leave --device out")
    listed = large_members() if large else members()
    names = SLICE if options.slice else tuple(m.name for m in listed if options.only in m.name)
    if not names:
        raise UsageError(f"no member's name contains {options.only!r}", remedy="see quantguard/canary/range/members.py")
    return _with_parents([m for m in listed if m.name in names])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("quantguard-range"), help="where models and rows are kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--only", default="", metavar="TEXT", help="members whose name contains it, with their parents")
    parser.add_argument("--no-defences", action="store_true", help="do not run noise, FlipGuard and the paper's method")
    parser.add_argument("--slice", type=Path, metavar="DIR", help="build the slice and copy it there")
    parser.add_argument("--size", choices=("small", "large"), default="small", help="large: 85 M parameters, bf16")
    parser.add_argument("--device", default="cpu", help="cpu, or with --size large cuda")
    return parser


def _record(manifest: Path, known: Sequence[Row], rows: Sequence[Row]) -> None:
    """Rows of this run in the place of their older ones; what this run left out stays as it was."""
    by_name = {row.name: row for row in known}
    for row in rows:
        old = by_name.get(row.name)
        same = old is not None and old.digest == row.digest and not row.defended
        by_name[row.name] = replace(row, defended=old.defended, flipped=old.flipped) if old and same else row
    listed = [by_name[m.name] for m in (*members(), *large_members()) if m.name in by_name]
    write_atomically(manifest, "".join(row_text(row) for row in listed).encode())


def _export(rows: list[Row], out: Path, slice_directory: Path) -> None:
    """Replace the slice: one directory a model, and the manifest beside them."""
    shutil.rmtree(slice_directory / "models", ignore_errors=True)
    for row in rows:
        shutil.copytree(out / row.name / "model", slice_directory / "models" / row.name)
    text = "".join(row_text(row) for row in rows)
    write_atomically(slice_directory / "manifest.jsonl", text.encode())


def _with_parents(chosen: list[Member]) -> list[Member]:
    """`chosen` and all that they start from, parents first."""
    ordered: dict[Recipe, Member] = {}

    def add(recipe: Recipe, member: Member) -> None:
        for parent in parents_of(recipe):
            add(parent, member_of(parent))
        ordered.setdefault(recipe, member)

    for member in chosen:
        add(member.recipe, member)
    return list(ordered.values())


def _run(jobs: dict[Recipe, Job], processes: int) -> Iterator[Done | tuple[str, str]]:
    """Each job once its parents are done, `processes` at a time; what fails takes its children with it."""
    started = time.monotonic()
    waiting, done = dict(jobs), set[Recipe]()
    running: dict[Future[Done], Recipe] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as pool:
        while waiting or running:
            try:
                for recipe in [r for r in waiting if set(parents_of(r)) <= done][: processes - len(running)]:
                    running[pool.submit(work, waiting[recipe])] = recipe
                    del waiting[recipe]
            except BrokenProcessPool:
                yield from ((job.member.name, "a worker died; run this again") for job in waiting.values())
                waiting.clear()
            if not running:
                yield from ((job.member.name, "what it starts from could not be built") for job in waiting.values())
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                recipe = running.pop(future)
                finished = _outcome(future, jobs[recipe])
                if isinstance(finished, Done):
                    done.add(recipe)
                _tell(finished, len(jobs) - len(waiting) - len(running), len(jobs), time.monotonic() - started)
                yield finished


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever, or write beside the next run."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _outcome(future: Future[Done], job: Job) -> Done | tuple[str, str]:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001  one member's failure is told at the end and must not stop the others
        return job.member.name, f"{type(error).__name__}: {error}"


def _tell(finished: Done | tuple[str, str], count: int, total: int, seconds: float) -> None:
    if isinstance(finished, Done):
        parts = {"built": finished.built, "measured": finished.measured, "defended": finished.defended}
        said = ", ".join(f"{what} {took:.0f} s" for what, took in parts.items() if took >= 1) or "was there"
        name = finished.name
    else:
        name, said = finished[0], f"FAILED {finished[1]}"
    sys.stderr.write(f"[{count}/{total}, {seconds / 60:.0f} min] {name}: {said}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
