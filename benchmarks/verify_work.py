"""Counterfactual rounding of one member of the range in one process; what is done already is kept."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import torch
from range_work import calibration, record_of, sources

from quantguard.canary.range.members import Member
from quantguard.checkpoint.digest import model_digest
from quantguard.core.calibration import neutral_prompts
from quantguard.core.measurement import Divergence, Drift, Measurements
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.core.verdict import Subject
from quantguard.evidence.records import from_plain, to_plain, write_atomically
from quantguard.verify.counterfactual_request import CounterfactualRequest
from quantguard.verify.measure import measure
from quantguard.verify.triggers import TriggerRequest

TEXTS: Final = ("own", "neutral")  # prompts of the kinds that the model is used for, or the built-in set
SAMPLES: Final = 64
LOCALISE_ABOVE: Final = 2.0
_KIND: Final = 64  # prompts of each kind that range_work.calibration gives
_CODE: Final = (
    "verify/counterfactual*.py",
    "verify/beside.py",
    "models/rounded.py",
    "models/texts.py",
    "grids/block.py",
    "grids/row.py",
)


@dataclass(frozen=True, slots=True)
class Job:
    member: Member
    model: Path
    text: str  # one of TEXTS
    record: Path  # where the result is kept


@dataclass(frozen=True, slots=True)
class Result:
    drifts: tuple[Drift, ...]  # one a scheme
    seconds: float


def job_of(member: Member, directory: Path, text: str) -> Job:
    """The job with its record's name, which changes with the model, the prompts and the code."""
    model = directory / member.name / "model"
    identity = (model_digest(model), prompts_of(member, text), LOCALISE_ABOVE, sources(*_CODE))
    return Job(member, model, text, record_of(model.parent, f"counterfactual-{text}", identity))


def prompts_of(member: Member, text: str) -> tuple[Prompt, ...]:
    """`SAMPLES` prompts, as many of each kind as goes; none of them is measured elsewhere."""
    if text == "neutral":
        return neutral_prompts()[:SAMPLES]
    given = calibration(member)
    kinds = [given[start : start + _KIND] for start in range(0, len(given), _KIND)]
    return tuple(prompt for row in zip_longest(*kinds) for prompt in row if prompt is not None)[:SAMPLES]


def measured_beside(
    model: Path,
    schemes: tuple[Scheme, ...],
    *,
    counterfactual: CounterfactualRequest | None = None,
    triggers: TriggerRequest | None = None,
) -> Measurements:
    """What is measured beside full precision alone: no scenario and no benchmark is asked."""
    with tempfile.TemporaryDirectory(prefix="quantguard-") as folder:
        return measure(
            model,
            subject=Subject.ORIGINAL,
            model_digest="",
            schemes=schemes,
            scenarios=(),
            benchmarks=(),
            reference=None,
            confidence=0.95,
            device="cpu",
            seed=0,
            scratch=Path(folder),
            counterfactual=counterfactual,
            triggers=triggers,
        )


def work(job: Job) -> None:
    """Leave the record."""
    torch.set_num_threads(1)
    began = time.monotonic()
    request = CounterfactualRequest(prompts_of(job.member, job.text), LOCALISE_ABOVE)
    drifts = measured_beside(job.model, ROUNDINGS, counterfactual=request).drifts
    result = Result(drifts, round(time.monotonic() - began, 1))
    write_atomically(job.record, json.dumps(to_plain(Result, result)).encode())


def read_result(record: Path) -> Result:
    return from_plain(Result, json.loads(record.read_bytes()))


def plain_row(job: Job, result: Result) -> dict[str, Any]:
    """What is recorded of one model, its figures with four digits."""
    return {
        "name": job.member.name,
        "kind": job.member.kind.value,
        "variant": job.member.variant,
        "targets": job.member.targets,
        "text": job.text,
        "seconds": result.seconds,
        "schemes": {drift.scheme.value: _plain(drift) for drift in result.drifts},
    }


def _plain(drift: Drift) -> Any:
    found = drift.divergence
    if not isinstance(found, Divergence):
        return found.reason
    rounded = replace(
        found,
        ratio=_digits(found.ratio),
        lower=_digits(found.lower),
        upper=_digits(found.upper),
        nearest=_digits(found.nearest),
        random=_digits(found.random),
        layers=tuple((name, _digits(share)) for name, share in found.layers),
    )
    return to_plain(Divergence, rounded)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
