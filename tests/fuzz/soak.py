"""Many inputs in one process: made, judged, counted; what breaks the law is kept as a directory to look at."""

from __future__ import annotations

import faulthandler
import os
import resource
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from quantguard.core.errors import QuantGuardError
from tests.fuzz import seeds
from tests.fuzz.law import judge
from tests.fuzz.targets import TARGETS, Target, chance_of
from tests.fuzz.tree import Disk, Tree

MEMORY: Final = 4 * 1024**3  # bytes of address space that inputs may take beyond what the imports took
_STUCK: Final = 300.0  # seconds for a batch, after which the process says where it is and ends


@dataclass(slots=True)
class Tally:
    inputs: int = 0
    said: Counter[str] = field(default_factory=Counter[str])
    broken: list[str] = field(default_factory=list[str])  # one a breach: target, number and the first line of it
    outside: int = 0
    slowest: float = 0.0  # seconds
    seconds: float = 0.0  # in our entry points, of all inputs

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.said += other.said
        self.broken += other.broken
        self.outside += other.outside
        self.slowest = max(self.slowest, other.slowest)
        self.seconds += other.seconds


_RARE: Final[Tree] = {
    **seeds.single("llama"),
    "config.json": b'{"vocab_sise": 1, "quantization_config": {"x": 1}}',
    "generation_config.json": b'{"x": 1}',
}


def warm_up(disk: Disk) -> None:
    """Read honest and broken models without a watch: what is imported or read on first use is there afterwards."""
    for target in TARGETS.values():
        for tree in (seeds.furnished(), seeds.sharded(), seeds.single("gpt2"), _RARE, {"config.json": b"\xff"}, {}):
            disk.become(tree)
            try:
                target.read(disk.root)
            except QuantGuardError as error:
                str(error)


def limit_memory() -> None:
    """From here on this process gets MEMORY bytes and no more: what wants them ends in a MemoryError, a breach."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def soak(disk: Disk, name: str, numbers: range, seed: int, kept: Path, *, note: int | None = None) -> Tally:
    """Judge these inputs of one target. `note` is a descriptor where each number is written before it is judged."""
    tally, target = Tally(), TARGETS[name]
    faulthandler.dump_traceback_later(_STUCK, exit=True)
    try:
        for number in numbers:
            if note is not None:
                os.pwrite(note, f"{name} {number:<12}\n".encode(), 0)
            tree = target.make(chance_of(seed, name, number))
            _one(disk, tree, target, tally, kept / f"{name}-{number}")
    finally:
        faulthandler.cancel_dump_traceback_later()
    return tally


def _one(disk: Disk, tree: Tree, target: Target, tally: Tally, kept: Path) -> None:
    disk.become(tree)
    outcome = judge(disk.root, target.read)
    if outcome.breach.startswith("took "):
        outcome = judge(disk.root, target.read)  # the machine is not ours alone: slow is what is slow twice
    tally.inputs += 1
    tally.said[outcome.said] += 1
    tally.outside += outcome.outside
    tally.slowest = max(tally.slowest, outcome.seconds)
    tally.seconds += outcome.seconds
    if outcome.breach:
        tally.broken.append(f"{kept.name}: {outcome.breach.strip().splitlines()[-1]}")
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "why.txt").write_text(outcome.breach, encoding="utf-8", errors="backslashreplace")
        if not (kept / "model").exists():
            Disk(kept / "model").become(tree)
