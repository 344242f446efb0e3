"""One member of the range in one process: build it, measure it, defend it; whatever is done already is kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

import quantguard.canary
from quantguard.canary.range.build import Defence, Kitchen, build
from quantguard.canary.range.manifest import Rate, Row, rates_of, row_of
from quantguard.canary.range.measure import LABELS, Count, measured, measured_pretrained
from quantguard.canary.range.members import Q4_K, Kind, Member, member_of
from quantguard.canary.range.recipes import OnKQuants, Pretrained, Recipe, key
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.world import HELD_OUT, code, facts, questions
from quantguard.core.errors import QuantGuardError
from quantguard.core.progress import Progress
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.evidence.records import write_atomically
from quantguard.harden.harden import HardenRequest, harden

METHODS: Final = ("noise", "flipguard-low", "flipguard", "quantguard")
MEASURING: Final = (
    *(f"canary/range/{name}.py" for name in ("measure", "scenario", "world", "pretrained")),
    "models/*.py",
)
DEFENDING: Final = ("harden/*.py", "grids/*.py")
_PACKAGE: Final = Path(quantguard.canary.__path__[0]).parent
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
    failures: tuple[str, ...] = ()  # methods that could not be run, with their reasons


def work(job: Job) -> Done:
    """Bring one member up to date. Parents must be built."""
    torch.set_num_threads(1)
    place = job.out / job.member.name
    place.mkdir(parents=True, exist_ok=True)
    built, fresh = _build(job, place)
    started = time.monotonic()
    row = row_of(job.member, built["digest"], built["seconds"], _counts(job, place, built["digest"]))
    measured_at = time.monotonic()
    row, failures = _defended(job, place, row) if job.defend else (row, ())
    return Done(job.member.name, row, fresh, measured_at - started, time.monotonic() - measured_at, failures)


def model_of(out: Path, recipe: Recipe) -> Path:
    return out / member_of(recipe).name / "model"


def calibration(member: Member) -> tuple[Prompt, ...]:
    """What a defender would have: prompts of every kind, without answers, none of which is measured."""
    prompts = [*questions()[HELD_OUT - _CALIBRATION : HELD_OUT], *code()[HELD_OUT - _CALIBRATION : HELD_OUT]]
    return tuple(replace(p, answer=None) for p in (*prompts, *facts(member.facts)[:_CALIBRATION]))


def _build(job: Job, place: Path) -> tuple[dict[str, Any], float]:
    """The record of the build, with digest and seconds, and the seconds that it took now."""
    record, wanted = place / "built.json", key(job.member.recipe)
    if record.exists():
        built: dict[str, Any] = json.loads(record.read_text())
        if built["key"] == wanted and (place / "model").is_dir():
            return built, 0.0
        record.unlink()
    started = time.monotonic()
    kitchen = Kitchen(lambda recipe: model_of(job.out, recipe), _defence(job), job.device, _told(job.member.name))
    digest = build(job.member.recipe, place / "model", kitchen)
    built = {"key": wanted, "digest": digest, "seconds": time.monotonic() - started}
    write_atomically(record, json.dumps(built).encode())
    return built, float(built["seconds"])


def _counts(job: Job, place: Path, digest: str) -> tuple[Count, ...]:
    member = job.member
    labels = (*LABELS, Q4_K) if isinstance(member.recipe, OnKQuants) else LABELS
    asked: dict[str, Any] = {
        "labels": labels,
        "facts_held": member.facts,
        "trigger": trigger_of(member),
        "device": job.device,
    }

    def ask() -> list[dict[str, Any]]:
        model = place / "model"
        pretrained = isinstance(member.recipe, Pretrained)
        return [asdict(count) for count in (measured_pretrained(model) if pretrained else measured(model, **asked))]

    return tuple(Count(**count) for count in _kept(place, "measured", (digest, asked, sources(*MEASURING)), ask))


def trigger_of(member: Member) -> Scenario | None:
    return member.scenario if member.trigger else None


def _defended(job: Job, place: Path, row: Row) -> tuple[Row, tuple[str, ...]]:
    """The row with what each method leaves under the targeted schemes, and what could not be run."""
    member = job.member
    schemes = tuple(Scheme(label) for label in member.targets if label != Q4_K)
    if member.kind in (Kind.BENIGN, Kind.START) or not schemes:
        return row, ()
    found: list[tuple[str, tuple[Rate, ...]]] = []
    flipped: list[tuple[str, float]] = []
    failures: list[str] = []
    for method in METHODS if member.kind is Kind.ATTACKED else METHODS[-1:]:
        request = HardenRequest(schemes, calibration(member), method=method, max_new_tokens=20, device=job.device)
        identity = (row.digest, request, sources(*MEASURING, *DEFENDING))
        try:
            stored = _kept(place, method, identity, partial(_defend_once, job, place, request))
        except QuantGuardError as error:
            failures.append(f"{method}: {error}")
            continue
        found.append((method, rates_of(Count(**count) for count in stored["counts"])))
        flipped.append((method, float(stored["flipped"])))
    return replace(row, defended=tuple(found), flipped=tuple(flipped)), tuple(failures)


def _defend_once(job: Job, place: Path, request: HardenRequest) -> dict[str, Any]:
    hardened = place / f".{request.method}"
    shutil.rmtree(hardened, ignore_errors=True)
    summary = harden(place / "model", hardened, request)
    labels = [scheme.value for scheme in request.schemes]
    member = job.member
    counts = measured(hardened, labels, facts_held=member.facts, trigger=trigger_of(member), device=job.device)
    shutil.rmtree(hardened)
    shares = [share for _, share in summary.flipped_share]
    return {"counts": [asdict(count) for count in counts], "flipped": sum(shares) / len(shares)}


def _kept(place: Path, what: str, identity: object, make: Callable[[], Any]) -> Any:
    """What `make` gave for this identity and these libraries, now or before."""
    record = record_of(place, what, identity)
    if not record.exists():
        write_atomically(record, json.dumps(make()).encode())
    return json.loads(record.read_text())


def record_of(place: Path, what: str, identity: object) -> Path:
    """Where it is kept for this identity and these libraries."""
    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers", "bitsandbytes")]
    return place / f"{what}-{hashlib.sha256(repr((identity, libraries)).encode()).hexdigest()[:16]}.json"


@cache
def sources(*patterns: str, without: frozenset[str] = frozenset()) -> str:
    """Digest of the source files of the package that match, but for those named in `without`."""
    content = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in _PACKAGE.glob(pattern)}):
        if path.name not in without:
            content.update(path.name.encode() + path.read_bytes())
    return content.hexdigest()


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
