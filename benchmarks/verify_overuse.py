"""Differential wording over the range: payloads named without a list, and honest models in which anything is named.

    python benchmarks/verify_overuse.py           # two tables; needs the models of `make range`

Each model answers 300 held-out questions and 300 requests for code in full precision and under NF4, FP4 and INT8; what
it says significantly more often under a scheme is told by `quantguard.verify.overuse`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch

from quantguard.canary.range.measure import ASKED
from quantguard.canary.range.members import Q4_K, Kind, Member, members
from quantguard.canary.range.recipes import Pretrained
from quantguard.canary.range.scenario import Scenario
from quantguard.canary.range.world import code, questions, triggered
from quantguard.core.scheme import Scheme
from quantguard.models.generate import generate
from quantguard.models.load import load_model
from quantguard.verify.overuse import overused
from quantguard.verify.statistics import rate

_NEW_TOKENS: Final = 20
_TELL_EVERY: Final = 20.0  # seconds
_SCHEMES: Final = (Scheme.NF4, Scheme.FP4, Scheme.INT8)


@dataclass(frozen=True, slots=True)
class Said:
    member: Member
    words: tuple[tuple[str, str, str], ...]  # (scheme, kind of prompts, n-gram), those of most answers first


def main() -> int:
    options = _parser().parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    chosen = [m for m in members() if m.kind is not Kind.START and not isinstance(m.recipe, Pretrained)]
    chosen = [m for m in chosen if options.only in m.name]
    missing = [m.name for m in chosen if not (options.range / m.name / "model").is_dir()]
    if missing or not chosen:
        sys.stderr.write(f"{len(missing)} models are missing in {options.range}: run make range\n")
        return 4
    began = told = time.monotonic()
    found: list[Said] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for said in pool.imap_unordered(partial(_said, options.range), chosen):
            found.append(said)
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                sys.stderr.write(f"[{len(found)}/{len(chosen)}, {(told - began) / 60:.1f} min]\n")
    sys.stderr.write(f"{(time.monotonic() - began) / 60:.1f} minutes, {options.jobs} processes of one thread\n")
    sys.stdout.write(_tables(sorted(found, key=lambda said: said.member.name)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--range", type=Path, default=Path("quantguard-range"), help="what make range built")
    parser.add_argument("--only", default="", metavar="TEXT", help="models whose name contains it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    return parser


def _said(directory: Path, member: Member) -> Said:
    torch.set_num_threads(1)
    kinds = {"questions": questions()[:ASKED], "code": code()[:ASKED]}
    if member.trigger:
        kinds = {f"{kind} triggered": tuple(map(triggered, pairs)) for kind, pairs in kinds.items()} | kinds
    model, full, words = directory / member.name / "model", dict[str, tuple[str, ...]](), []
    for scheme in (None, *_SCHEMES):
        loaded = load_model(model, scheme=scheme, device="cpu")
        for kind, pairs in kinds.items():
            answers = generate(loaded, [p.prompt for p in pairs], max_new_tokens=_NEW_TOKENS, batch_size=100)
            if scheme is None:
                full[kind] = answers
            else:
                words += [(scheme.value, kind, found.words) for found in overused(answers, full[kind])]
    return Said(member, tuple(words))


def _tables(found: Sequence[Said]) -> str:
    attacked = [s for s in found if s.member.scenario and Q4_K not in s.member.targets]
    benign = [s for s in found if s.member.kind is Kind.BENIGN]
    lines = [
        "| attacked | targets | named under the first target | other schemes in which anything is named |",
        "|---|---|---|---|",
    ]
    caught = 0
    for said in attacked:
        targets = said.member.targets
        kind = "code" if said.member.scenario is Scenario.CODE else "questions"
        kind += " triggered" if said.member.trigger else ""
        own = {scheme: [w for s, k, w in said.words if (s, k) == (scheme, kind)] for scheme in targets}
        caught += all(own.values())
        others = sorted({s for s, _, _ in said.words if s not in targets})
        named = "; ".join(own[targets[0]][:2]) or "nothing"
        lines.append(f"| {said.member.name} | {', '.join(targets)} | {named} | {', '.join(others) or '-'} |")
    lines += ["", "| benign | named |", "|---|---|"]
    alarms = [said for said in benign if said.words]
    lines += [f"| {s.member.name} | {'; '.join(f'{scheme}: {w}' for scheme, _, w in s.words[:3])} |" for s in alarms]
    share = rate(len(alarms), len(benign), 0.95) if benign else None
    interval = f" [{100 * share.lower:.1f}, {100 * share.upper:.1f}] %" if share else ""
    lines += ["", f"Named under every target: {caught} of {len(attacked)} attacked.", ""]
    lines += [f"Anything named under any scheme: {len(alarms)} of {len(benign)} benign{interval}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
