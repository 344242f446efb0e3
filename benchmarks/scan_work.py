"""One scan, in a process of its own: of a member of the range, or of a checkpoint that is made for it and removed."""

from __future__ import annotations

import json
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from scan_bases import CHANGES, DTYPES, MINILM, Base, weights_of
from scan_prepared import Preparation, wholly_prepared, with_outliers
from torch import Tensor

from quantguard.canary.range.manifest import Row
from quantguard.checkpoint.layout import open_checkpoint
from quantguard.core.finding import Severity
from quantguard.scan.judge import findings, judge
from quantguard.scan.plan import Effort, planned
from quantguard.scan.survey import survey

_MEMORY: Final = Path("/dev/shm")  # noqa: S108  (a file system in memory, where there is one)


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint to make: a base, changed, stored in a dtype, then prepared."""

    name: str  # unique within its group; decides what is drawn
    group: str
    base: Base = MINILM
    change: str = "as it is"  # a key of CHANGES
    dtype: str = "float32"
    how: Preparation | None = None
    shares: tuple[float, ...] = (1.0,)  # of the weights that are prepared, one scan each, ascending
    enough: int = 0  # shares in a row with an alarm, after which larger ones are not tried; 0: all are
    outliers: float = 0.0  # of the groups of 32


@dataclass(frozen=True, slots=True)
class Seen:
    """What one scan said."""

    name: str
    share: float  # of the weights that were prepared, as asked for; 0 where none were
    strengths: tuple[tuple[str, float], ...]  # grid -> `Examined.strength`, the most of any weight
    alarms: tuple[tuple[str, str, int], ...]  # rule, grid and number of the HIGH findings
    remarks: tuple[tuple[str, str, int], ...]  # of all others
    distance: float  # of the alarm with most weights, share of the cell; NaN where there is none
    moved: float  # share of the linear weights that hiding moved; NaN where that cannot be told
    tensors: int
    seconds: float

    @property
    def alarmed(self) -> bool:
        return bool(self.alarms)

    def strength(self, *grids: str) -> float:
        """The most under any of these grids, or under any at all; 0 where none was looked at."""
        return max((value for grid, value in self.strengths if not grids or grid in grids), default=0.0)


def scan_member(row: Row, directory: Path) -> tuple[Seen, ...]:
    """A member of the range."""
    torch.set_num_threads(1)
    return (_scanned(directory / row.name / "model", row.name, 0.0, _moved(row, directory)),)


def scan_case(case: Case, directory: Path) -> tuple[Seen, ...]:
    """A made checkpoint at each of its shares; `directory` is that of the range."""
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(zlib.crc32(f"{case.group}/{case.name}".encode()))
    weights = weights_of(case.base, directory, random)
    change, dtype = CHANGES[case.change], DTYPES[case.dtype]
    honest = {name: change(weight, random).to(dtype) for name, weight in weights.items()}
    if case.outliers:
        honest = {name: with_outliers(weight, case.outliers, random) for name, weight in honest.items()}
    how = case.how
    if how is None:
        return (_written(case, 0.0, honest),)
    ready = list(honest)[: 1 if how.first_only else None]
    whole = {name: wholly_prepared(honest[name], how, random) for name in ready}
    drawn = {name: torch.rand(honest[name].shape, generator=random) for name in ready}
    made: list[Seen] = []
    for share in case.shares:
        part = {name: torch.where(drawn[name] < share, whole[name], honest[name]) for name in ready}
        made.append(_written(case, share, honest | part))
        if case.enough and len(made) >= case.enough and all(seen.alarmed for seen in made[-case.enough :]):
            break
    return tuple(made)


def _written(case: Case, share: float, weights: dict[str, Tensor]) -> Seen:
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        transposed = case.base.conv1d
        stored = {name: (w.T if transposed else w).contiguous() for name, w in weights.items()}
        save_file(stored, Path(scratch) / "model.safetensors")
        config = {"model_type": "gpt2" if transposed else "llama", "dtype": case.dtype}
        (Path(scratch) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return _scanned(Path(scratch), case.name, share, float("nan"))


def _scanned(model: Path, name: str, share: float, moved: float) -> Seen:
    """What `quantguard scan` says with seed 0; the files beside the weights are not looked at."""
    began = time.monotonic()
    checkpoint = open_checkpoint(model)
    plan = planned(checkpoint, Effort.FULL, 0)
    measured = survey(checkpoint, plan, device="cpu", threads=1, on_bytes=lambda *_: None)
    rows = judge(measured)
    strengths: dict[str, float] = {}
    for row in rows:
        grid = row.examined.grid
        strengths[grid] = max(strengths.get(grid, 0.0), row.examined.strength)
    found = list(findings(measured, rows))
    loud = Counter((f.rule, f.grid) for f in found if f.severity.at_least(Severity.HIGH))
    quiet = Counter((f.rule, f.grid) for f in found if not f.severity.at_least(Severity.HIGH))
    worst = max((row for row in rows if row.suspicious), key=lambda row: row.share, default=None)
    return Seen(
        name=name,
        share=share,
        strengths=tuple(strengths.items()),
        alarms=tuple((*key, n) for key, n in loud.items()),
        remarks=tuple((*key, n) for key, n in quiet.items()),
        distance=worst.distance if worst else float("nan"),
        moved=moved,
        tensors=len(measured.weights),
        seconds=time.monotonic() - began,
    )


def _moved(row: Row, directory: Path) -> float:
    """Share of the linear weights that differ from those of the nearest prepared start, in the member's dtype."""
    start = next((name for name in row.parents if name.startswith("start-")), None)
    if start is None or not (directory / start / "model").is_dir():
        return float("nan")
    model = directory / row.name / "model"
    after, before = (load_file(path / "model.safetensors") for path in (model, directory / start / "model"))
    linear = [one.entry.name for one in planned(open_checkpoint(model), Effort.FULL, 0) if one.linear]
    pairs = [(after[name], before[name].to(after[name].dtype)) for name in linear]
    return sum(int((a != b).sum()) for a, b in pairs) / max(1, sum(a.numel() for a, _ in pairs))
