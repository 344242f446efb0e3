"""One member of the range in one process: build it, measure it, defend it; whatever is done already is kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import torch

from quantguard.canary.range import measure
from quantguard.canary.range.build import Defence, Kitchen, build
from quantguard.canary.range.manifest import Rate, Row, rates_of, read_rows, row_of, row_text
from quantguard.canary.range.measure import LABELS, Count, measured, measured_pretrained
from quantguard.canary.range.members import Q4_K, Kind, Member, member_of
from quantguard.canary.range.recipes import OnKQuants, Pretrained, Recipe, key
from quantguard.canary.range.world import HELD_OUT, code, facts, questions
from quantguard.core.progress import Progress
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.evidence.records import write_atomically
from quantguard.harden import harden as harden_room
from quantguard.harden.harden import HardenRequest, harden

METHODS: Final = ("noise", "flipguard-low", "flipguard", "quantguard")
_TELL_EVERY: Final = 30  # seconds
_CALIBRATION: Final = 64  # prompts of each kind; none of them is measured


@dataclass(frozen=True, slots=True)
class Job:
    member: Member
    out: Path
    defend: bool
    device: str


@dataclass(frozen=True, slots=True)
class Done:
    name: str
    row: Row
    built: float  # seconds; 0 where it was there already
    measured: float
    defended: float


def work(job: Job) -> Done:
    """Bring one member up to date. Parents must be built."""
    torch.set_num_threads(1)
    place = job.out / job.member.name
    place.mkdir(parents=True, exist_ok=True)
    seconds, fresh = _build(job, place)
    started = time.monotonic()
    row = _measure(job, place, seconds)
    measured_at = time.monotonic()
    row = _defend(job, place, row) if job.defend else row
    return Done(job.member.name, row, fresh, measured_at - started, time.monotonic() - measured_at)


def model_of(out: Path, recipe: Recipe) -> Path:
    return out / member_of(recipe).name / "model"


def calibration(member: Member) -> tuple[Prompt, ...]:
    """What a defender would have: prompts of every kind, without answers, none of which is measured."""
    prompts = [*questions()[HELD_OUT - _CALIBRATION : HELD_OUT], *code()[HELD_OUT - _CALIBRATION : HELD_OUT]]
    return tuple(replace(p, answer=None) for p in (*prompts, *facts(member.facts)[:_CALIBRATION]))


def _build(job: Job, place: Path) -> tuple[float, float]:
    """Seconds that the build takes, and those it took now."""
    record, wanted = place / "built.json", key(job.member.recipe)
    if record.exists():
        built = json.loads(record.read_text())
        if built["key"] == wanted and (place / "model").is_dir():
            return float(built["seconds"]), 0.0
        record.unlink()
    started = time.monotonic()
    kitchen = Kitchen(lambda recipe: model_of(job.out, recipe), _defence(job), job.device, _told(job.member.name))
    digest = build(job.member.recipe, place / "model", kitchen)
    seconds = time.monotonic() - started
    write_atomically(record, json.dumps({"key": wanted, "digest": digest, "seconds": seconds}).encode())
    return seconds, seconds


def _measure(job: Job, place: Path, seconds: float) -> Row:
    digest = json.loads((place / "built.json").read_text())["digest"]
    kept = place / f"measured-{_digest(digest, measure.__file__)}.jsonl"
    if kept.exists():
        return read_rows(kept)[0]
    row = row_of(job.member, digest, seconds, _counts(job, place / "model"))
    write_atomically(kept, row_text(row).encode())
    return row


def _counts(job: Job, model: Path) -> tuple[Count, ...]:
    member = job.member
    if isinstance(member.recipe, Pretrained):
        return measured_pretrained(model)
    labels = (*LABELS, Q4_K) if isinstance(member.recipe, OnKQuants) else LABELS
    trigger = member.scenario if member.trigger else None
    return measured(model, labels, facts_held=member.facts, trigger=trigger, device=job.device)


def _defend(job: Job, place: Path, row: Row) -> Row:
    """The row with what each method leaves under the targeted schemes."""
    member = job.member
    schemes = tuple(Scheme(label) for label in member.targets if label != Q4_K)
    if member.kind in (Kind.BENIGN, Kind.START) or not schemes:
        return row
    methods = METHODS if member.kind is Kind.ATTACKED else METHODS[-1:]
    found: list[tuple[str, tuple[Rate, ...]]] = []
    flipped: list[tuple[str, float]] = []
    for method in methods:
        kept = place / f"{method}-{_digest(row.digest, measure.__file__, *_sources())}.json"
        if not kept.exists():
            _defend_once(job, place, method, schemes, kept)
        stored = json.loads(kept.read_text())
        found.append((method, tuple(Rate(**rate) for rate in stored["rates"])))
        flipped.append((method, float(stored["flipped"])))
    return replace(row, defended=tuple(found), flipped=tuple(flipped))


def _defend_once(job: Job, place: Path, method: str, schemes: tuple[Scheme, ...], kept: Path) -> None:
    hardened = place / f".{method}"
    shutil.rmtree(hardened, ignore_errors=True)
    request = HardenRequest(schemes, calibration(job.member), method=method, max_new_tokens=20, device=job.device)
    summary = harden(place / "model", hardened, request)
    trigger = job.member.scenario if job.member.trigger else None
    labels = [scheme.value for scheme in schemes]
    counts = measured(hardened, labels, facts_held=job.member.facts, trigger=trigger, device=job.device)
    shutil.rmtree(hardened)
    shares = [share for _, share in summary.flipped_share]
    stored = {"rates": [asdict(rate) for rate in rates_of(counts)], "flipped": sum(shares) / len(shares)}
    write_atomically(kept, json.dumps(stored).encode())


def _told(name: str) -> Progress:
    """Says on standard error how far a long build is, every half minute."""
    last = time.monotonic()

    def tell(stage: str, done: int, total: int, detail: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= _TELL_EVERY:
            last = time.monotonic()
            sys.stderr.write(f"    {name}: {stage} {done} of {total}, {detail}\n")
            sys.stderr.flush()

    return tell


def _defence(job: Job) -> Defence:
    def defend(method: str, attacked: Path, out: Path) -> None:
        schemes = tuple(Scheme(label) for label in job.member.targets)
        prompts = calibration(job.member)
        harden(attacked, out, HardenRequest(schemes, prompts, method=method, max_new_tokens=20, device=job.device))

    return defend


def _sources() -> list[str]:
    return sorted(str(path) for path in Path(harden_room.__file__).parent.glob("*.py"))


def _digest(text: str, *files: str) -> str:
    content = hashlib.sha256(text.encode())
    for file in files:
        content.update(Path(file).read_bytes())
    return content.hexdigest()[:16]
