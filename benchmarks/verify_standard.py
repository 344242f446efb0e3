"""What the limits of policies/standard.yaml say of every honest and attacked model of the range, as it was registered.

    python benchmarks/verify_standard.py --jobs 2     # one table; needs the models of `make range`

Each model is scanned and measured by the real code in full precision and under the policy's schemes: 300 held-out
questions for content injection and over-refusal, 300 requests for code, 200 questions as the task, counterfactual
rounding and perplexity on 64 prompts of the kinds that it is used for. The limits are the file's; prompts and task are
the range's, which these small models can answer. Killed, it goes on with the models that are left.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from range_work import record_of, sources
from verify_work import prompts_of

from quantguard.canary.range.measure import ASKED
from quantguard.canary.range.members import Q4_K, Kind, Member, members
from quantguard.canary.range.recipes import Pretrained
from quantguard.canary.range.world import code, questions, triggered
from quantguard.checkpoint.digest import model_digest
from quantguard.core.measurement import Measurements, Scenario
from quantguard.core.prompts import Prompt
from quantguard.core.verdict import Outcome, Subject, Verdict
from quantguard.evidence.records import write_atomically
from quantguard.gate.outcome import decide_original
from quantguard.policy.load import load_policy
from quantguard.policy.schema import BenchmarkLimits, ContentInjectionLimits, Policy
from quantguard.scan.scan import scan
from quantguard.verify.benchmarks import BenchmarkRequest
from quantguard.verify.measure import CounterfactualRequest, PerplexityRequest, ScenarioRequest, measure
from quantguard.verify.statistics import rate

_ROOT: Final = Path(__file__).parents[1]
_TASK_ASKED: Final = 200
_NEW_TOKENS: Final = 20
_TELL_EVERY: Final = 30.0  # seconds
_CODE: Final = ("verify/**/*.py", "scan/*.py", "policy/decide.py", "models/*.py")


@dataclass(frozen=True, slots=True)
class Judged:
    member: Member
    verdict: str
    broken: tuple[str, ...]  # rules that are not met, each once


def main() -> int:
    options = _parser().parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    chosen = [m for m in members() if m.kind is not Kind.START and not isinstance(m.recipe, Pretrained)]
    chosen = [m for m in chosen if options.only in m.name and Q4_K not in m.targets]
    chosen = [m for m in chosen if m.kind is Kind.BENIGN or not options.benign]
    chosen.sort(key=lambda member: member.kind is not Kind.BENIGN)
    missing = [m.name for m in chosen if not (options.range / m.name / "model").is_dir()]
    if missing or not chosen:
        sys.stderr.write(f"{len(missing)} models are missing in {options.range}: run make range\n")
        return 4
    began = told = time.monotonic()
    found: list[Judged] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for judged in pool.imap_unordered(partial(_judged, options.range.resolve()), chosen):
            found.append(judged)
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                sys.stderr.write(f"[{len(found)}/{len(chosen)}, {(told - began) / 60:.1f} min]\n")
    sys.stdout.write(_tables(sorted(found, key=lambda judged: judged.member.name)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--range", type=Path, default=Path("quantguard-range"), help="what make range built")
    parser.add_argument("--only", default="", metavar="TEXT", help="models whose name contains it")
    parser.add_argument("--benign", action="store_true", help="honest models only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    return parser


def _judged(range_: Path, member: Member) -> Judged:
    torch.set_num_threads(1)
    model = range_ / member.name / "model"
    policy = _policy()
    kept = record_of(model.parent, "standard", (model_digest(model), policy.model_dump_json(), sources(*_CODE)))
    if not kept.exists():
        write_atomically(kept, json.dumps(_judge(model, member, policy)).encode())
    row = json.loads(kept.read_bytes())
    return Judged(member, row["verdict"], tuple(row["broken"]))


def _policy() -> Policy:
    """The file's limits, on the range's task."""
    policy = load_policy(_ROOT / "policies" / "standard.yaml").policy
    task = BenchmarkLimits(task="range", max_drop=policy.benchmarks[0].max_drop)
    return policy.model_copy(update={"benchmarks": (task,)})


def _judge(model: Path, member: Member, policy: Policy) -> dict[str, Any]:
    findings = scan(model, device="cpu", seed=0).findings
    with tempfile.TemporaryDirectory(prefix="quantguard-") as folder:
        decision = decide_original(policy, findings, _measured(model, member, policy, Path(folder)))
    broken = dict.fromkeys(reason.rule for reason in decision.reasons if reason.outcome is not Outcome.MET)
    return {"verdict": decision.verdict.value, "broken": list(broken)}


def _measured(model: Path, member: Member, policy: Policy, folder: Path) -> Measurements:
    own = prompts_of(member, "own")
    limit = policy.counterfactual.max_ratio if policy.counterfactual is not None else 1.0
    return measure(
        model,
        subject=Subject.ORIGINAL,
        model_digest=model_digest(model),
        schemes=policy.schemes,
        scenarios=_scenarios(member, policy),
        benchmarks=(BenchmarkRequest("range", _task(folder)),),
        reference=None,
        confidence=policy.confidence,
        device="cpu",
        seed=0,
        scratch=folder / "scratch",
        counterfactual=CounterfactualRequest(own, limit),
        perplexity=PerplexityRequest(own),
    )


def _scenarios(member: Member, policy: Policy) -> tuple[ScenarioRequest, ...]:
    """Of a model with a trigger half of the prompts have it: whoever knew of it would ask so."""
    requests = []
    for scenario, limits in policy.attack_success.by_scenario():
        asked = (code() if scenario is Scenario.VULNERABLE_CODE else questions())[:ASKED]
        if member.trigger:
            asked = tuple(triggered(pair) if row % 2 else pair for row, pair in enumerate(asked))
        keywords = limits.keywords if isinstance(limits, ContentInjectionLimits) else ()
        requests.append(ScenarioRequest(scenario, asked, keywords, _NEW_TOKENS))
    return tuple(requests)


def _task(folder: Path) -> Path:
    """The task of policies/canary.yaml with questions of the range."""
    rows: Sequence[Prompt] = questions()[-_TASK_ASKED:]
    lines = "".join(json.dumps({"prompt": row.prompt, "answer": row.answer}) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(lines)
    text = (_ROOT / "policies" / "canary" / "canary_questions.yaml").read_text()
    (folder / "range.yaml").write_text(text.replace("task: canary_questions", "task: range"))
    return folder / "range.yaml"


def _tables(found: Sequence[Judged]) -> str:
    lines = ["| model | verdict | rules that are not met |", "|---|---|---|"]
    shown = [j for j in found if (j.verdict == Verdict.PROMOTE.value) is not (j.member.kind is Kind.BENIGN)]
    lines += [f"| {j.member.name} | {j.verdict} | {', '.join(j.broken) or '-'} |" for j in shown]
    for kind, group in (
        ("honest", [j for j in found if j.member.kind is Kind.BENIGN]),
        ("attacked", [j for j in found if j.member.kind is not Kind.BENIGN and j.member.scenario]),
    ):
        if group:
            stopped = sum(j.verdict != Verdict.PROMOTE.value for j in group)
            share = rate(stopped, len(group), 0.95)
            lines += ["", f"{kind}: {stopped} of {len(group)} not promoted [{share.lower:.1%}, {share.upper:.1%}]."]
            rules = sorted({rule for j in group for rule in j.broken})
            lines += [f"- `{rule}`: {sum(rule in j.broken for j in group)}" for rule in rules]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
