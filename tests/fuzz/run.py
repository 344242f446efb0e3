"""The long run: thousands of hostile directories, counted.

python -m tests.fuzz.run --inputs 100000 --seed 0 --jobs 2       # exit 1 where any input breaks the law
python -m tests.fuzz.run --only headers --number 4711 --seed 0   # one of them again
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tests.fuzz.soak import Tally, limit_memory, soak, warm_up
from tests.fuzz.targets import TARGETS
from tests.fuzz.tree import Disk

_BATCH: Final = 500  # inputs
_SHOWN: Final = 20  # breaches
_MEMORY_DISK: Final = Path("/dev/shm")


class _Worker:
    """What one process keeps between batches."""

    disk: Disk
    note: int


def _start(work: str) -> None:
    _Worker.disk = Disk(Path(work) / f"model-{os.getpid()}")
    _Worker.note = os.open(Path(work) / f"note-{os.getpid()}", os.O_RDWR | os.O_CREAT)
    warm_up(_Worker.disk)
    limit_memory()


def _work(name: str, numbers: range, seed: int, kept: str) -> tuple[str, Tally]:
    return name, soak(_Worker.disk, name, numbers, seed, Path(kept), note=_Worker.note)


def batches(inputs: int) -> Iterator[tuple[str, range]]:
    """The numbers of each target, its share of `inputs`, in pieces."""
    for name, target in TARGETS.items():
        count = -(-inputs * target.share // 100)
        for begin in range(0, count, _BATCH):
            yield name, range(begin, min(begin + _BATCH, count))


def run(inputs: int, seed: int, jobs: int, kept: Path) -> dict[str, Tally]:
    """All the inputs on `jobs` processes; a process that dies is a breach of the input that it last noted."""
    tallies = {name: Tally() for name in TARGETS}
    begin, done = time.monotonic(), 0
    memory = _MEMORY_DISK if _MEMORY_DISK.is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=memory, prefix="quantguard-fuzz-") as work,
        ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start, initargs=(work,)) as pool,
    ):
        futures = [pool.submit(_work, name, numbers, seed, str(kept)) for name, numbers in batches(inputs)]
        try:
            for future in as_completed(futures):
                name, tally = future.result()
                tallies[name].add(tally)
                done += tally.inputs
                if done // 10_000 != (done - tally.inputs) // 10_000:
                    _say(f"{done} inputs, {time.monotonic() - begin:.0f} s\n")
        except BrokenProcessPool:
            for note in Path(work).glob("note-*"):
                last = note.read_text(encoding="ascii").strip()
                tallies[last.split()[0]].broken.append(f"{last}: a process died while it or another did this")
    return tallies


def table(tallies: Mapping[str, Tally]) -> str:
    """Counts by target, then what was said, by word."""
    columns = ("inputs", "results", "errors", "breaches", "outside", "slowest ms", "inputs/s")
    lines = [f"{'target':<12}" + "".join(f"{column:>12}" for column in columns)]
    whole = Tally()
    for tally in tallies.values():
        whole.add(tally)
    for name, tally in {**tallies, "all": whole}.items():
        errors = sum(count for word, count in tally.said.items() if word.endswith("Error"))
        broken = sum(count for word, count in tally.said.items() if word.startswith(("crash", "hang", "unprintable")))
        numbers = (tally.inputs, tally.inputs - errors - broken, errors, len(tally.broken), tally.outside)
        rate = tally.inputs / tally.seconds if tally.seconds else 0.0
        lines.append(
            f"{name:<12}" + "".join(f"{n:>12}" for n in numbers) + f"{tally.slowest * 1000:>12.0f}{rate:>12.0f}"
        )
    lines += ["", *(f"{count:>9}  {word}" for word, count in whole.said.most_common())]
    return "\n".join(lines) + "\n"


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts; 1 where an input breaks the law."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--kept", type=Path, default=Path("build/fuzz"), help="where inputs that break the law are kept"
    )
    parser.add_argument("--only", choices=sorted(TARGETS), help="with --number: the target of one input")
    parser.add_argument("--number", type=int)
    asked = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes started below
    begin = time.monotonic()
    if asked.only is not None and asked.number is not None:
        with tempfile.TemporaryDirectory() as work:
            _start(work)
            numbers = range(asked.number, asked.number + 1)
            tallies = dict([_work(asked.only, numbers, asked.seed, str(asked.kept))])
    else:
        tallies = run(asked.inputs, asked.seed, asked.jobs, asked.kept)
    _say("\n" + table(tallies) + f"\nseed {asked.seed}, {asked.jobs} processes, {time.monotonic() - begin:.0f} s\n")
    broken = [line for tally in tallies.values() for line in tally.broken]
    for line in broken[:_SHOWN]:
        _say(line + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
