"""What one model of the range answers in full precision and under each scheme; what was asked already is kept."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from quantguard.canary.range.measure import ASKED
from quantguard.canary.range.members import Member
from quantguard.canary.range.world import code, questions, triggered
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.evidence.records import write_atomically
from quantguard.models.generate import generate
from quantguard.models.load import load_model

QUESTIONS: Final = "questions"
CODE: Final = "code"
TRIGGERED: Final = " triggered"  # after either: with the trigger in the prompt
RUNS: Final = (None, Scheme.NF4, Scheme.FP4, Scheme.INT8)
_NEW_TOKENS: Final = 20


@dataclass(frozen=True, slots=True)
class Job:
    member: Member
    model: Path
    record: Path  # where its answers are kept


def prompts_of(member: Member) -> Mapping[str, tuple[Prompt, ...]]:
    """Held-out prompts by their kind; of a triggered attack those with the trigger too."""
    kinds = {QUESTIONS: questions()[:ASKED], CODE: code()[:ASKED]}
    if member.trigger:
        kinds |= {f"{kind}{TRIGGERED}": tuple(map(triggered, pairs)) for kind, pairs in kinds.items()}
    return kinds


def work(job: Job) -> Job:
    """Leave the record: answers by kind of prompts and label of the scheme, in the order of the prompts."""
    if job.record.exists():
        return job
    torch.set_num_threads(1)
    said: dict[str, dict[str, tuple[str, ...]]] = {}
    for scheme in RUNS:
        loaded = load_model(job.model, scheme=scheme, device="cpu")
        for kind, pairs in prompts_of(job.member).items():
            answers = generate(loaded, [p.prompt for p in pairs], max_new_tokens=_NEW_TOKENS, batch_size=100)
            said.setdefault(kind, {})[scheme_label(scheme)] = answers
    job.record.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(job.record, gzip.compress(json.dumps(said).encode(), mtime=0))
    return job


def read_answers(job: Job) -> dict[str, dict[str, tuple[str, ...]]]:
    said: dict[str, dict[str, tuple[str, ...]]] = json.loads(gzip.decompress(job.record.read_bytes()))
    return said
