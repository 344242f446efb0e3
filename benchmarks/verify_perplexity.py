"""What rounding, attacks and hardening cost in perplexity: the rise over the original's full precision, by scheme.

    python benchmarks/verify_perplexity.py --jobs 2     # tables on stdout, what each model gave in benchmarks/

Measures the benign and attacked members of the range (`make range`) with seed 0 on 64 prompts of the kinds that each is
used for, none of which is measured elsewhere, each continued by its own full precision. Attacked ones are hardened with
`auto` for their targets and measured again on the texts of the original. Killed, it goes on from there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from range_work import calibration, record_of, sources
from verify_work import prompts_of

from quantguard.canary.range.members import Kind, Member, members
from quantguard.checkpoint.digest import model_digest
from quantguard.core.measurement import Measurements, Perplexity, Rise, TextLoss
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.core.verdict import Subject
from quantguard.evidence.records import write_atomically
from quantguard.harden.harden import HardenRequest, harden
from quantguard.verify.measure import PerplexityRequest, measure

CODE = ("verify/perplexity*.py", "verify/rise.py", "models/texts.py", "harden/*.py", "grids/*.py")
SHOWN = (0.0, 0.5, 0.9, 0.95, 1.0)  # quantiles of a table


@dataclass(frozen=True, slots=True)
class Job:
    member: Member
    model: Path
    record: Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--range", type=Path, default=Path("quantguard-range"), help="what make range built")
    parser.add_argument("--work", type=Path, help="where each result is kept; absent: in the range")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/verify_perplexity.jsonl.gz"))
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--partial", action="store_true", help="nothing is measured: what there is so far")
    options = parser.parse_args()
    listed = [m for m in members() if m.kind is not Kind.START and (options.range / m.name / "built.json").is_file()]
    listed.sort(key=lambda member: member.kind is not Kind.BENIGN)
    jobs = [_job(member, options.range.resolve(), options.work) for member in listed]
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(work, [job for job in jobs if not (job.record.exists() or options.partial)]):
            pass
    rows = [json.loads(job.record.read_text()) for job in jobs if job.record.exists()]
    options.record.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode(), mtime=0))
    sys.stdout.write(tables(rows))
    return 0


def _job(member: Member, range_: Path, kept: Path | None) -> Job:
    model = range_ / member.name / "model"
    place = model.parent if kept is None else kept / member.name
    place.mkdir(parents=True, exist_ok=True)
    return Job(member, model, record_of(place, "perplexity", (model_digest(model), sources(*CODE))))


def work(job: Job) -> None:
    """Leave the record."""
    torch.set_num_threads(1)
    member, schemes = job.member, tuple(s for s in Scheme if s.value in job.member.targets)
    row: dict[str, Any] = {"name": member.name, "kind": member.kind.value, "targets": member.targets}
    with tempfile.TemporaryDirectory(prefix="quantguard-") as folder:
        original = _measured(job, job.model, None, Path(folder) / "scratch")
        row["original"] = [_plain(found) for found in original.perplexities]
        if schemes and member.kind is Kind.ATTACKED:
            copy = Path(folder) / "hardened"
            harden(job.model, copy, HardenRequest(schemes, calibration(member), method="auto"))
            hardened = _measured(job, copy, original, Path(folder) / "scratch")
            row["hardened"] = [_plain(found) for found in hardened.perplexities]
    write_atomically(job.record, json.dumps(row).encode())


def _measured(job: Job, model: Path, reference: Measurements | None, scratch: Path) -> Measurements:
    return measure(
        model,
        subject=Subject.ORIGINAL if reference is None else Subject.HARDENED,
        model_digest="",
        schemes=list(Scheme),
        scenarios=(),
        benchmarks=(),
        reference=reference,
        confidence=0.95,
        device="cpu",
        seed=0,
        scratch=scratch,
        perplexity=PerplexityRequest(prompts_of(job.member, "own")),
    )


def _plain(row: Perplexity) -> dict[str, Any]:
    said: dict[str, Any] = {"scheme": scheme_label(row.scheme)}
    if not isinstance(row.loss, TextLoss) or not isinstance(row.rise, Rise) or not isinstance(row.own_rise, Rise):
        return said | {"unmeasured": getattr(row.loss, "reason", getattr(row.rise, "reason", ""))}
    figures = [row.loss.nats_a_token, *(getattr(row.rise, end) for end in ("value", "lower", "upper"))]
    nats, value, lower, upper = (float(f"{figure:.4g}") for figure in figures)
    own = float(f"{row.own_rise.value:.4g}")
    return said | {"nats": nats, "tokens": sum(row.loss.tokens), "rise": [value, lower, upper], "own": own}


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Quantiles of the rise and of its upper end, in percent, by scheme and kind of model."""
    heads = "".join(f" | {int(100 * q)} %" for q in SHOWN)
    lines = [f"| models | scheme | n | figure{heads} |", "|---|---|---|---" + "|---" * len(SHOWN) + "|"]
    for scheme in ("full", *(scheme.value for scheme in Scheme)):
        for kind, found in _groups(rows, scheme):
            for figure, index in (("rise", 0), ("upper end", 2)):
                values = sorted(100 * float(each["rise"][index]) for each in found)
                cells = "".join(f" | {_quantile(values, q):.3g}" for q in SHOWN)
                lines.append(f"| {kind} | {scheme} | {len(values)} | {figure}{cells} |")
    failed = {e["unmeasured"]: r["name"] for r in rows for e in r["original"] if "unmeasured" in e}
    lines += [f"- not measured: {name}: {reason}" for reason, name in failed.items()]
    return "\n".join(lines) + "\n"


def _groups(rows: Sequence[dict[str, Any]], scheme: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    benign = [row for row in rows if row["kind"] == Kind.BENIGN.value]
    attacked = [row for row in rows if row["kind"] == Kind.ATTACKED.value and scheme in (*row["targets"], "full")]
    hardened = [row for row in attacked if "hardened" in row]
    for kind, group, side in (
        ("benign", benign, "original"),
        ("attacked under it", attacked, "original"),
        ("hardened for it", hardened, "hardened"),
    ):
        found = [each for row in group for each in row[side] if each["scheme"] == scheme and "rise" in each]
        if found and not (scheme == "full" and side == "original"):
            yield kind, found


def _quantile(values: Sequence[float], share: float) -> float:
    if len(values) < 2 or share in (0.0, 1.0):
        return values[0] if share == 0.0 else values[-1]
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]


if __name__ == "__main__":
    sys.exit(main())
