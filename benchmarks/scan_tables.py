"""The benchmark's tables, in Markdown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

from scan_bases import DTYPES, Base
from scan_cases import SCHEMES
from scan_run import Results
from scan_stats import area, exact_interval, smallest_seen
from scan_work import Seen

from quantguard.canary.range.manifest import Row

GRIDS = {"nf4": "NF4", "fp4": "FP4", "int8": "INT8", "q4_k": "Q4_K"}
_OUTLIERS = "variant-outliers"  # its own rule, no positions


def tables(results: Results) -> str:
    """All of them, one under the other."""
    parts = [areas(results), alarms(results), fresh(results), attacked(results), starts(results)]
    parts += [power(results), other_ways(results), adaptive(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def scores(results: Results, grid: str = "", *, held_out: bool | None = None) -> tuple[list[float], list[float]]:
    """Strengths of the range's attacked and benign members under one grid, or under any; of one half, or of both."""
    grids = (GRIDS[grid],) if grid else ()
    attacked, benign = [], []
    for row, seen in results.members:
        if held_out is not None and is_held_out(row) is not held_out:
            continue
        if row.kind == "benign":
            benign.append(seen.strength(*grids))
        elif row.kind != "start" and row.name != _OUTLIERS and (not grid or grid in row.targets):
            attacked.append(seen.strength(*grids))
    return attacked, benign


def is_held_out(row: Row) -> bool:
    """Thresholds were set with Llama networks of seeds 1 to 3, all that is made of them, and MiniLM in float32."""
    own = f"{row.name} {' '.join(row.parents)}"
    if "all-minilm" in row.name:
        return not row.name.endswith("float32")
    if "neox" in own:
        return True
    return row.seed > 3 and not any(parent.startswith("llama") for parent in row.parents)


def areas(results: Results) -> str:
    """Areas under the curves, by grid and by what was held out."""
    lines = []
    for name, held_out in (("all members", None), ("development", False), ("held out", True)):
        for grid in ("", *GRIDS):
            attacked, benign = scores(results, grid, held_out=held_out)
            lines.append([name, GRIDS.get(grid, "any grid"), *_area(attacked, benign)])
    fresh = [seen for _, seen in results.single("fresh benign")]
    for grid in ("", *GRIDS):
        names = (GRIDS[grid],) if grid else ()
        found = results.single("fresh prepared")
        made = [seen.strength(*names) for case, seen in found if not grid or (case.how and case.how.target == grid)]
        lines.append(["fresh", GRIDS.get(grid, "any grid"), *_area(made, [seen.strength(*names) for seen in fresh])])
    attacked, benign = scores(results)
    attacked += [seen.strength() for row, seen in results.kind("start") if _is_complete(row)]
    lines.append(["all members and complete starts", "any grid", *_area(attacked, benign)])
    return "Areas under the ROC curves.\n\n" + _markdown(["set", "grid", "AUC", "95 %", "attacked", "benign"], lines)


def _area(attacked: Sequence[float], benign: Sequence[float]) -> list[str]:
    if min(len(attacked), len(benign)) < 2:
        return ["-", "-", str(len(attacked)), str(len(benign))]
    found = area(attacked, benign)
    how = "exact" if found.exact else "DeLong"
    interval = f"{found.low:.3f} to {found.high:.3f} ({how})"
    return [f"{found.value:.4f}", interval, str(found.positives), str(found.negatives)]


def alarms(results: Results) -> str:
    """Alarms at the shipped thresholds, and which."""
    benign = results.kind("benign")
    moved = [seen for row, seen in results.kind("attacked", "variant") if row.name != _OUTLIERS]
    sets = [
        ("benign, range", [seen for _, seen in benign]),
        ("benign, range, held out", [seen for row, seen in benign if is_held_out(row)]),
        ("benign, hard", [seen for _, seen in results.single("hard")]),
        ("benign, fresh", [seen for _, seen in results.single("fresh benign")]),
        ("attacked, range, all", [seen for _, seen in results.kind("attacked", "variant")]),
        ("attacked, range, 10 % moved or more", [seen for seen in moved if seen.moved >= 0.1]),
        ("attacked, range, under 10 % moved", [seen for seen in moved if seen.moved < 0.1]),
        ("prepared, fresh", [seen for _, seen in results.single("fresh prepared")]),
    ]
    lines = []
    for name, found in sets:
        hits = sum(seen.alarmed for seen in found)
        low, high = exact_interval(hits, len(found))
        tests = str(sum(seen.tensors for seen in found))
        lines.append([name, f"{hits} of {len(found)}", f"{100 * low:.1f} to {100 * high:.1f} %", tests])
    said = [
        f"false alarm: {s.name}: {_alarms(s)}"
        for name, found in sets[:4]
        for s in found
        if s.alarmed and "held" not in name
    ]
    said += [
        f"missed: {s.name}: strength {s.strength():.2f}"
        for _, found in (sets[4], sets[7])
        for s in found
        if not s.alarmed
    ]
    close = sorted((s for _, found in sets[:4] for s in found if not s.alarmed), key=lambda s: -s.strength())
    said += [f"benign and closest to an alarm: {s.name}: strength {s.strength():.2f}" for s in dict.fromkeys(close[:3])]
    told = "\n".join(f"- {line}" for line in said)
    head = ["set", "checkpoints with an alarm", "95 % (exact)", "linear weights"]
    return f"Alarms at the shipped thresholds.\n\n{_markdown(head, lines)}\n\n{told}"


def fresh(results: Results) -> str:
    """The fresh prepared checkpoints with an alarm, by grid, way and dtype."""
    lines: dict[tuple[str, str], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for case, seen in results.single("fresh prepared"):
        if case.how:
            way = f"{case.how.way}, {seen.share:.0%} of the weights"
            lines[GRIDS[case.how.target], way][case.dtype].append(seen.alarmed)
    table = [[*key, *(f"{sum(found[d])} of {len(found[d])}" for d in DTYPES)] for key, found in lines.items()]
    return "Fresh, with an alarm.\n\n" + _markdown(["grid", "way", *DTYPES], table) if table else ""


def attacked(results: Results) -> str:
    """Each attacked member: how much of it was prepared, and what was seen."""
    lines = []
    for row, seen in results.kind("attacked", "variant"):
        share = "-" if math.isnan(seen.moved) else f"{100 * seen.moved:.1f} %"
        strength = seen.strength(*(GRIDS[t] for t in row.targets))
        lines.append(
            [row.name, ", ".join(row.targets), share, f"{strength:.2f}", _alarms(seen) or "**none**", _remarks(seen)]
        )
    head = ["attacked member", "targets", "moved in hiding", "strength", "alarms (weights)", "remarks"]
    return _markdown(head, lines)


def starts(results: Results) -> str:
    """Prepared starts: attacks by joint training alone, where they are complete."""
    found = results.kind("start")
    if not found:
        return ""
    whole = [(row, seen) for row, seen in found if _is_complete(row)]
    rest = [(row, seen) for row, seen in found if not _is_complete(row)]
    lines = []
    for name, part in (("complete attacks", whole), ("others", rest)):
        hits = sum(seen.alarmed for _, seen in part)
        low, high = exact_interval(hits, len(part))
        marks = sum(any(rule == "scan.crowded" for rule, _, _ in seen.remarks) for _, seen in part)
        lines.append([name, f"{hits} of {len(part)}", f"{100 * low:.1f} to {100 * high:.1f} %", str(marks)])
    head = ["prepared starts, before hiding", "with an alarm", "95 % (exact)", "with scan.crowded"]
    return _markdown(head, lines)


def _is_complete(row: Row) -> bool:
    """No payload in full precision (at most 1 %), and at least 80 % under each target."""
    rates = [row.rate(row.scenario or "", scheme) for scheme in ("full", *row.targets)]
    shares = [rate.share if rate else math.nan for rate in rates]
    return shares[0] <= 0.01 and all(share >= 0.8 for share in shares[1:])


def power(results: Results) -> str:
    """The smallest share that raised an alarm, all larger ones tried included, for every seed."""
    parts = []
    for group, title in (("power", "every linear weight"), ("one layer", "the first linear weight only")):
        lines: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for case, seen in results.group(group):
            if case.how:
                smallest = smallest_seen([(one.share, one.alarmed) for one in seen])
                lines[str(case.base), case.how.target][case.dtype].append(smallest)
        table = [[*key, *(_shares(found[dtype]) for dtype in DTYPES)] for key, found in lines.items()]
        if table:
            head = ["checkpoint", "prepared for", *DTYPES]
            parts.append(f"Smallest share seen, in {title} (by seed).\n\n{_markdown(head, table)}")
    return "\n\n".join(parts)


def strengths(results: Results, base: Base, target: str, dtype: str) -> list[tuple[float, float]]:
    """Median strength by share, over the seeds with which it was tried."""
    found: dict[float, list[float]] = defaultdict(list)
    for case, seen in results.group("power"):
        if case.base == base and case.how and case.how.target == target and case.dtype == dtype:
            for one in seen:
                found[one.share].append(one.strength())
    return [(share, median(values)) for share, values in sorted(found.items())]


def other_ways(results: Results) -> str:
    """Other margins than the published one."""
    lines: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for case, seen in results.group("other ways"):
        if case.how:
            way = f"{case.how.way}, {100 * (case.how.margin or 0):g} %"
            smallest = smallest_seen([(one.share, one.alarmed) for one in seen])
            lines[str(case.base), way, case.dtype][case.how.target] = _shares([smallest])
    table = [[*key, *(found.get(scheme, "-") for scheme in SCHEMES)] for key, found in lines.items()]
    head = ["checkpoint", "way, margin", "dtype", *(GRIDS[scheme] for scheme in SCHEMES)]
    return f"Smallest share seen, other margins.\n\n{_markdown(head, table)}" if table else ""


def adaptive(results: Results) -> str:
    """What an attacker may try: the strength, and what is said of it, by grid and dtype."""
    lines: dict[str, dict[str, str]] = defaultdict(dict)
    for case, seen in results.group("adaptive"):
        for one in seen:
            share = f" of {one.share:.0%} of the weights" if len(seen) > 1 else ""
            way = f"{case.how.way}, {100 * (case.how.margin or 0):g} %{share}" if case.how else "outliers"
            target = GRIDS.get(case.how.target, case.how.target) if case.how else f"{case.outliers:.0%} of the groups"
            lines[f"{way} | {target}"][case.dtype] = _said(one)
    table = [[*key.split(" | "), *(found.get(dtype, "-") for dtype in DTYPES)] for key, found in lines.items()]
    head = ["what is done, margin", "grid", *DTYPES]
    return f"Adaptive attackers.\n\n{_markdown(head, table)}" if lines else ""


def _said(seen: Seen) -> str:
    """The strength, the rules of the alarms in bold, and other rules."""
    loud = dict.fromkeys(rule.removeprefix("scan.") for rule, _, _ in seen.alarms)
    quiet = dict.fromkeys(rule.removeprefix("scan.") for rule, _, _ in seen.remarks)
    return ", ".join([f"{seen.strength():.2f}", *(f"**{rule}**" for rule in loud), *quiet])


def _alarms(seen: Seen) -> str:
    return _counted(seen.alarms)


def _remarks(seen: Seen) -> str:
    return _counted(seen.remarks)


def _counted(said: Iterable[tuple[str, str, int]]) -> str:
    return ", ".join(f"{rule.removeprefix('scan.')} {grid} {n}".replace("  ", " ") for rule, grid, n in said)


def _shares(found: Sequence[float]) -> str:
    distinct = sorted(set(found))
    return " / ".join("not seen" if math.isinf(share) else f"{100 * share:g} %" for share in distinct)


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*rows, *(f"| {' | '.join(line)} |" for line in lines)])
