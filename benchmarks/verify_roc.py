"""How well counterfactual rounding tells attacked models from honest ones, by scheme and at the shipped threshold.

    python benchmarks/verify_roc.py             # one table on stdout, what each model gave in benchmarks/
    python benchmarks/verify_roc.py --partial   # of what `make range` has built so far, nothing recorded

Measures every member of the range (`make range`) with seed 0 on prompts of the kinds that the model is used for; with
`--texts neutral` on the built-in ones, most of whose words these models do not know. Killed, it goes on from there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from scan_stats import area, exact_interval
from verify_work import SAMPLES, TEXTS, Job, Result, job_of, plain_row, read_result, work

from quantguard.canary.range.members import Kind, Member, members
from quantguard.core.measurement import Divergence
from quantguard.core.scheme import ROUNDINGS, Scheme

MAX_RATIO = 2.5  # of policies/standard.yaml
_TELL = 30.0  # seconds between two lines of progress
_NAMED = 12  # members of a list


def main() -> int:
    options = _parser().parse_args()
    listed = [member for member in members() if member.kind is not Kind.START]
    built = [member for member in listed if (options.range / member.name / "built.json").is_file()]
    if not built or (len(built) < len(listed) and not options.partial):
        sys.stderr.write(f"{len(listed) - len(built)} members missing in {options.range}: run make range\n")
        return 4
    jobs = [job_of(member, options.range.resolve(), text) for text in options.texts for member in built]
    _run([job for job in jobs if not job.record.exists()], options.jobs)
    results = [(job, read_result(job.record)) for job in jobs]
    sys.stdout.write(_tables(results))
    if not options.partial:
        rows = "".join(json.dumps(plain_row(job, result), sort_keys=True) + "\n" for job, result in results)
        options.record.write_bytes(gzip.compress(rows.encode(), mtime=0))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--range", type=Path, default=Path("quantguard-range"), help="what make range built")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/verify_roc.jsonl.gz"), help="figures by model")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=TEXTS[:1], help="kinds of text")
    parser.add_argument("--partial", action="store_true", help="what there is of the range; nothing is recorded")
    return parser


def _run(jobs: Sequence[Job], processes: int) -> None:
    began = told = time.monotonic()
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done, future in enumerate(as_completed([pool.submit(work, job) for job in jobs]), 1):
            future.result()
            now = time.monotonic()
            if now - told > _TELL or done == len(jobs):
                told, rest = now, (now - began) / done * (len(jobs) - done)
                sys.stderr.write(f"[{done}/{len(jobs)}, {(now - began) / 60:.1f} min] about {rest / 60:.1f} min left\n")
                sys.stderr.flush()


def _tables(results: Sequence[tuple[Job, Result]]) -> str:
    lines = [
        f"Ratio nearest / random on {SAMPLES} texts, 8 copies; raised: the upper end of the 95 % interval is above "
        f"{MAX_RATIO:g}.",
        "",
        "| text | scheme | AUC [95 %] | attacked under it: lowest ratio, median | benign: highest ratio, median "
        "| benign raised | attacked raised | attacked for others: raised |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for text in dict.fromkeys(job.text for job, _ in results):
        own = [(job.member, result) for job, result in results if job.text == text]
        lines += [*(_row(text, scheme, own) for scheme in ROUNDINGS), _models(text, own)]
    seconds = [result.seconds for _, result in results]
    lines += ["", f"{sum(seconds) / len(seconds):.1f} s a model and kind of text, at most {max(seconds):.1f} s.", ""]
    for text in dict.fromkeys(job.text for job, _ in results):
        own = [(job.member, result) for job, result in results if job.text == text]
        lines += [f"- {text}, missed: {_named(_misses(own))}", f"- {text}, benign raised: {_named(_alarms(own))}"]
        lines.append(f"- {text}, not measured: {_named(_unmeasured(own))}")
    return "\n".join(lines) + "\n"


def _row(text: str, scheme: Scheme, results: Sequence[tuple[Member, Result]]) -> str:
    targeted = [found for member, found in _found(results, scheme) if scheme.value in member.targets]
    benign = [found for member, found in _found(results, scheme) if member.kind is Kind.BENIGN]
    others = [
        found for member, found in _found(results, scheme) if member.targets and scheme.value not in member.targets
    ]
    if min(len(targeted), len(benign)) < 2:
        return f"| {text} | {scheme.value} | - | {len(targeted)} | {len(benign)} | - | - | - |"
    roc = area([found.ratio for found in targeted], [found.ratio for found in benign])
    spread = [sorted(found.ratio for found in group) for group in (targeted, benign)]
    return (
        f"| {text} | {scheme.value} | {roc.value:.3f} [{roc.low:.3f}, {roc.high:.3f}] "
        f"| {spread[0][0]:.3g}, {spread[0][len(spread[0]) // 2]:.3g} "
        f"| {spread[1][-1]:.3g}, {spread[1][len(spread[1]) // 2]:.3g} "
        f"| {_counted([*map(_raised, benign)])} | {_counted([*map(_raised, targeted)])} "
        f"| {sum(map(_raised, others))} of {len(others)} |"
    )


def _models(text: str, results: Sequence[tuple[Member, Result]]) -> str:
    """Models that are raised under any scheme: those attacked under one of them, and the benign."""
    schemes = {scheme.value for scheme in ROUNDINGS}
    groups = [
        [result for member, result in results if schemes & set(member.targets)],
        [result for member, result in results if member.kind is Kind.BENIGN],
    ]
    found = [[_measured(result) for result in group if _measured(result)] for group in groups]
    raised = [[any(map(_raised, model)) for model in group] for group in found]
    return f"| {text} | models, any scheme | - | - | - | {_counted(raised[1])} | {_counted(raised[0])} | - |"


def _measured(result: Result) -> list[Divergence]:
    return [drift.divergence for drift in result.drifts if isinstance(drift.divergence, Divergence)]


def _found(results: Iterable[tuple[Member, Result]], scheme: Scheme) -> list[tuple[Member, Divergence]]:
    return [
        (member, drift.divergence)
        for member, result in results
        for drift in result.drifts
        if drift.scheme is scheme and isinstance(drift.divergence, Divergence)
    ]


def _raised(found: Divergence) -> bool:
    return not found.upper <= MAX_RATIO


def _counted(raised: Sequence[bool]) -> str:
    low, high = exact_interval(sum(raised), len(raised))
    return f"{sum(raised)} of {len(raised)} [{100 * low:.1f} %, {100 * high:.1f} %]"


def _misses(results: Sequence[tuple[Member, Result]]) -> list[str]:
    return [
        f"{member.name} under {scheme.value} ({found.ratio:.2g}, up to {found.upper:.2g})"
        for scheme in ROUNDINGS
        for member, found in _found(results, scheme)
        if scheme.value in member.targets and not _raised(found)
    ]


def _alarms(results: Sequence[tuple[Member, Result]]) -> list[str]:
    return [
        f"{member.name} under {scheme.value} ({found.ratio:.2g}, up to {found.upper:.2g})"
        for scheme in ROUNDINGS
        for member, found in _found(results, scheme)
        if member.kind is Kind.BENIGN and _raised(found)
    ]


def _unmeasured(results: Sequence[tuple[Member, Result]]) -> list[str]:
    found: dict[str, dict[str, None]] = {}  # names by reason
    for member, result in results:
        for drift in result.drifts:
            if not isinstance(drift.divergence, Divergence):
                found.setdefault(drift.divergence.reason, {})[member.name] = None
    return [f"{' and '.join(names)}: {reason}" for reason, names in found.items()]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else "none"


if __name__ == "__main__":
    sys.exit(main())
