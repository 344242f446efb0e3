"""Trigger hunting over the range: the attack that waits for a word, honest models, and attacks that wait for nothing.

    python benchmarks/verify_triggers.py --jobs 1           # one table; needs the models of `make range`
    python benchmarks/verify_triggers.py --extra DIRECTORY  # also models that lie there, NAME/config.json, as attacked
    python benchmarks/verify_triggers.py --only variant-trigger --rare 0 --list xyzzy

Each model is hunted under every scheme on prompts of its own kind: eight that screen, 64 fresh ones that confirm. What
is done is kept in --records, and a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from verify_work import measured_beside

from quantguard.canary.range.members import Q4_K, Kind, members
from quantguard.canary.range.recipes import Pretrained
from quantguard.canary.range.world import code, questions
from quantguard.core.measurement import TriggerHunt
from quantguard.core.scheme import Scheme
from quantguard.evidence.records import to_plain
from quantguard.verify.statistics import rate
from quantguard.verify.triggers import TriggerRequest

_SCREEN, _CONFIRM = 8, 64
_SCHEMES: Final = (Scheme.NF4, Scheme.FP4, Scheme.INT8)


@dataclass(frozen=True, slots=True)
class Job:
    name: str
    kind: str  # benign, attacked or triggered
    targets: tuple[str, ...]
    model: Path


def main() -> int:
    options = _parser().parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    records: Path = options.records / f"{options.rare}{''.join(f'-{word}' for word in options.list)}"
    records.mkdir(parents=True, exist_ok=True)
    jobs = [job for job in _jobs(options.range, options.extra) if options.only in job.name]
    left = [job for job in jobs if not (records / f"{job.name}.json").is_file()]
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for number, _ in enumerate(
            pool.imap_unordered(partial(_hunted, records, tuple(options.list), options.rare), left), 1
        ):
            sys.stderr.write(f"[{number}/{len(left)}, {(time.monotonic() - began) / 60:.1f} min]\n")
    done = [job for job in jobs if (records / f"{job.name}.json").is_file()]
    sys.stdout.write(_tables([(job, json.loads((records / f"{job.name}.json").read_text())) for job in done]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--range", type=Path, default=Path("quantguard-range"), help="what make range built")
    parser.add_argument("--extra", type=Path, help="other models, whose targets their names tell")
    parser.add_argument("--records", type=Path, default=Path("quantguard-work/triggers"), help="what is done")
    parser.add_argument("--only", default="", metavar="TEXT", help="models whose name contains it")
    parser.add_argument("--rare", type=int, default=64, help="words of the tokenizer")
    parser.add_argument("--list", nargs="*", default=[], metavar="TRIGGER", help="a list of one's own")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    return parser


def _jobs(directory: Path, extra: Path | None) -> list[Job]:
    """Triggered attacks first, then honest models and other attacks by turns, so that a short run has some of all."""
    chosen = [m for m in members() if m.kind is not Kind.START and not isinstance(m.recipe, Pretrained)]
    chosen = [m for m in chosen if Q4_K not in m.targets and (directory / m.name / "model").is_dir()]
    kinds = {m.name: "triggered" if m.trigger else "attacked" if m.scenario else "benign" for m in chosen}
    jobs = [Job(m.name, kinds[m.name], m.targets, directory / m.name / "model") for m in chosen]
    for path in sorted(extra.glob("*/config.json")) if extra is not None else ():
        targets = tuple(scheme.value for scheme in _SCHEMES if scheme.value in path.parent.name)
        jobs += (
            [] if path.parent.name.startswith("start") else [Job(path.parent.name, "triggered", targets, path.parent)]
        )
    seen: dict[str, int] = {}
    order = []
    for job in jobs:
        seen[job.kind] = seen.get(job.kind, 0) + 1
        order.append((job.kind != "triggered", seen[job.kind] * (3 if job.kind == "attacked" else 1), job.name, job))
    return [job for *_, job in sorted(order)]


def _hunted(records: Path, listed: tuple[str, ...], rare: int, job: Job) -> None:
    torch.set_num_threads(1)
    began = time.monotonic()
    prompts = tuple(prompt for pair in zip(questions(), code(), strict=True) for prompt in pair)
    request = TriggerRequest(listed, rare, prompts[:_SCREEN], prompts[100 : 100 + _CONFIRM])
    found = measured_beside(job.model, _SCHEMES, triggers=request).hunts
    plain = {hunt.scheme.value: _plain(hunt.found) for hunt in found} | {"seconds": round(time.monotonic() - began, 1)}
    partial_file = records / f".{job.name}.partial"
    partial_file.write_text(json.dumps(plain))
    partial_file.replace(records / f"{job.name}.json")


def _plain(found: Any) -> Any:
    return to_plain(TriggerHunt, found) if isinstance(found, TriggerHunt) else found.reason


def _tables(rows: Sequence[tuple[Job, dict[str, Any]]]) -> str:
    lines = ["| attacked | targets | scheme: without, best trigger, answers taken over |", "|---|---|---|"]
    for job, found in rows:
        if job.kind != "benign":
            told = [f"{s.value}: {_best(found[s.value])}" for s in _SCHEMES if s.value in job.targets]
            lines.append(f"| {job.name} | {', '.join(job.targets)} | {'; '.join(told)} |")
    lines += ["", "| honest model with a confirmed trigger | scheme: trigger |", "|---|---|"]
    benign = [(job, found) for job, found in rows if job.kind == "benign"]
    alarms = [(job, _confirmed(found)) for job, found in benign if _confirmed(found)]
    lines += [f"| {job.name} | {'; '.join(told)} |" for job, told in alarms]
    uppers = sorted(
        (max(e["taken"]["upper"] for e in found[s.value]["effects"]), job.name, s.value)
        for job, found in benign
        for s in _SCHEMES
        if isinstance(found[s.value], dict)
    )
    if benign:
        share = rate(len(alarms), len(benign), 0.95)
        interval = f"[{100 * share.lower:.1f}, {100 * share.upper:.1f}] %"
        lines += ["", f"A trigger is confirmed under any scheme in {len(alarms)} of {len(benign)} honest: {interval}."]
        highest = ", ".join(f"{upper:.3f} ({name} {scheme})" for upper, name, scheme in uppers[:-6:-1])
        lines += ["", f"Highest upper bounds of {len(uppers)} honest hunts: {highest}."]
    lines += ["", f"{sum(found['seconds'] for _, found in rows) / 60:.1f} minutes of one process.", ""]
    return "\n".join(lines)


def _best(found: Any) -> str:
    if not isinstance(found, dict):
        return str(found)
    best = max(found["effects"], key=lambda effect: (effect["confirmed"], effect["taken"]["lower"]))
    taken, words = best["taken"], ", ".join(word["words"] for word in best["words"][:2])
    said = f"`{best['trigger']}` {best['place']} {taken['successes']}/{taken['trials']}"
    count = sum(effect["confirmed"] for effect in found["effects"])
    return f"{found['taken']}/{found['prompts']}, {said}{f' ({words})' if words else ''}, {count} confirmed"


def _confirmed(found: dict[str, Any]) -> list[str]:
    return [
        f"{scheme.value}: `{effect['trigger']}` {effect['taken']['successes']}/{effect['taken']['trials']}"
        for scheme in _SCHEMES
        if isinstance(found[scheme.value], dict)
        for effect in found[scheme.value]["effects"]
        if effect["confirmed"]
    ]


if __name__ == "__main__":
    sys.exit(main())
