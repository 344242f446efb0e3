"""One run of a hardening method on one model of the range, in one process, and what the model does afterwards."""

from __future__ import annotations

import json
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from range_work import DEFENDING, MEASURING, calibration, record_of, sources, trigger_of

from quantguard.canary.range.measure import ASKED, FACTS_ASKED, LABELS, Count, measured
from quantguard.canary.range.members import Member
from quantguard.canary.range.world import code, facts, questions
from quantguard.checkpoint.digest import model_digest
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.evidence.records import write_atomically
from quantguard.harden.calibration import Corpus
from quantguard.harden.harden import HardenRequest, harden
from quantguard.models.generate import generate
from quantguard.models.load import load_model

NONE: Final = "none"  # the method that leaves the model as it is
_ONLY_AUTO: Final = frozenset({"auto.py", "descent.py", "recentre.py", "moments.py"})  # no other method runs them
_FORM: Final = 1  # of a record: raised when something else is measured here
_NEW_TOKENS: Final = 20  # of the model's own answer to a calibration prompt


@dataclass(frozen=True, slots=True)
class Job:
    member: Member
    model: Path
    request: HardenRequest | None  # none: the model as it is
    record: Path  # where the result is kept


@dataclass(frozen=True, slots=True)
class Result:
    counts: tuple[Count, ...]  # under every scheme, and in full precision
    flipped: tuple[tuple[str, float], ...] = ()  # by scheme that was hardened for, share of the weights
    divergence: float = 0.0  # KL(before || after) in full precision, nats a token of calibration text
    seconds: float = 0.0  # of `harden`
    memory: float = 0.0  # most that `harden` held beyond the imports, MB


def job_of(member: Member, directory: Path, method: str, schemes: Sequence[str], prompts: int = 0) -> Job:
    """The job with its record's name.

    Args:
        directory: of the range.
        schemes: to harden for.
        prompts: of calibration; 0: as many as the range's.
    """
    model, request = directory / member.name / "model", None
    if method != NONE:
        given = prompts_of(member, prompts) if prompts else calibration(member)
        asked = tuple(Scheme(scheme) for scheme in schemes)
        request = HardenRequest(asked, given, method=method, max_new_tokens=_NEW_TOKENS)
    patterns = (*MEASURING, *DEFENDING) if request else MEASURING
    code_used = sources(*patterns, without=frozenset() if method == "auto" else _ONLY_AUTO)
    identity = (_FORM, model_digest(model), member.facts, trigger_of(member), request, code_used)
    return Job(member, model, request, record_of(model.parent, f"harden-{method}", identity))


def prompts_of(member: Member, count: int) -> tuple[Prompt, ...]:
    """`count` prompts, as many of each kind as goes, without answers; none of them is measured.

    Raises:
        ValueError: it knows too few facts that are not measured.
    """
    held = max(0, member.facts - FACTS_ASKED)
    each = -(-count // 3)
    if each > held:
        raise ValueError(f"{member.name} has {held} facts that are not measured, {each} are needed")
    kinds = (questions()[ASKED : ASKED + each], code()[ASKED : ASKED + each], facts(member.facts)[:each])
    mixed = [pair for together in zip(*kinds, strict=True) for pair in together]
    return tuple(Prompt(pair.prompt) for pair in mixed[:count])


def work(job: Job) -> None:
    """Leave the job's record, unless it is there."""
    torch.set_num_threads(1)
    if not job.record.exists():
        write_atomically(job.record, json.dumps(asdict(_result(job))).encode())


def result_of(job: Job) -> Result:
    """What is in its record."""
    raw = json.loads(job.record.read_text())
    counts = tuple(Count(**count) for count in raw.pop("counts"))
    flipped = tuple((scheme, share) for scheme, share in raw.pop("flipped"))
    return Result(counts, flipped, **raw)


def _result(job: Job) -> Result:
    if job.request is None:
        return Result(_measured(job, job.model))
    with tempfile.TemporaryDirectory(prefix="quantguard-") as scratch:
        hardened = Path(scratch) / "model"
        before = _peak()
        summary = harden(job.model, hardened, job.request)
        memory = _peak() - before
        flipped = tuple((scheme.value, share) for scheme, share in summary.flipped_share)
        apart = _divergence(job.model, hardened, calibration(job.member))
        return Result(_measured(job, hardened), flipped, apart, summary.seconds, memory)


def _measured(job: Job, model: Path) -> tuple[Count, ...]:
    return measured(model, LABELS, facts_held=job.member.facts, trigger=trigger_of(job.member))


def _divergence(one: Path, other: Path, prompts: Sequence[Prompt]) -> float:
    """KL(one || other) in full precision, mean over the tokens of the prompts with the answers of `one`: nats."""
    before, after = (load_model(path, scheme=None, device="cpu") for path in (one, other))
    asked = [prompt.prompt for prompt in prompts]
    answers = generate(before, asked, max_new_tokens=_NEW_TOKENS, batch_size=32)
    texts = [f"{prompt} {answer.strip()}" for prompt, answer in zip(asked, answers, strict=True)]
    total = tokens = 0.0
    with torch.inference_mode():
        for batch in Corpus(before, lambda: texts, 32, 0).once():
            given = {"input_ids": batch.tokens, "attention_mask": batch.mask, "use_cache": False}
            p, q = (torch.log_softmax(loaded.model(**given).logits.double(), dim=-1) for loaded in (before, after))
            each = (p.exp() * (p - q)).sum(dim=-1)  # (samples, tokens)
            total += float((each * batch.mask).sum())
            tokens += float(batch.mask.sum())
    return total / tokens


def _peak() -> float:
    """The most memory that this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
