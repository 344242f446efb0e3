"""`auto` against an attacker who knows it: boxes drawn in by what it moves, and hardened once more.

    python benchmarks/harden_adaptive.py          # one table; needs the models of `make range`

Each attack named below is run again as the range's `variant-adapted-*` are: the first attacked model is hardened by
`auto` for its targets, and the boxes in which the attacker trains full precision clean are made smaller on each side by
what the defence moved each weight. What is built is kept in the range's directory.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from range_work import Job, calibration, model_of, work

from quantguard.canary.range.manifest import rates_of
from quantguard.canary.range.measure import LABELS, Count, measured
from quantguard.canary.range.members import Member, members
from quantguard.canary.range.recipes import Adapted, Hidden
from quantguard.core.scheme import Scheme
from quantguard.harden.harden import HardenRequest, harden

_ATTACKS: Final = (
    "content-injection-nf4-llama-64",
    "content-injection-nf4-neox-64-facts-1900",
    "over-refusal-nf4+fp4+int8-llama-64",
)
_METHOD: Final = "auto"


def main() -> int:
    options = _parser().parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    chosen = [member for member in members() if member.name in _ATTACKS]
    missing = [m.name for m in chosen if not model_of(options.range, m.recipe).is_dir()]
    if missing:
        sys.stderr.write(f"{', '.join(missing)} missing in {options.range}: run make range\n")
        return 4
    head = ["adapted attack", "hardened for", "payload, targets", "payload, full", "facts, targets", "flips"]
    sys.stdout.write(f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n")
    for member in chosen:
        for line in _lines(member, options.range):
            sys.stdout.write(f"| {' | '.join(line)} |\n")
            sys.stdout.flush()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--range", type=Path, default=Path("quantguard-range"), help="what make range built")
    return parser


def _lines(member: Member, directory: Path) -> list[list[str]]:
    """The adapted model as it is, hardened for its targets, and for all schemes."""
    if not isinstance(member.recipe, Hidden):
        raise TypeError(f"{member.name} is no attack of its own")
    adapted = replace(member, name=f"adapted-{_METHOD}-{member.name}", recipe=Adapted(member.recipe, _METHOD))
    work(Job(adapted, directory, defend=False, device="cpu"))
    model = directory / adapted.name / "model"
    lines = [[adapted.name, "-", *_said(member, model), "-"]]
    targets = tuple(Scheme(label) for label in member.targets)
    for schemes in dict.fromkeys((targets, (Scheme.NF4, Scheme.FP4, Scheme.INT8))):
        with tempfile.TemporaryDirectory(prefix="quantguard-") as scratch:
            request = HardenRequest(schemes, calibration(member), method=_METHOD, max_new_tokens=20)
            summary = harden(model, Path(scratch) / "model", request)
            flips = ", ".join(f"{scheme.value} {share:.1%}" for scheme, share in summary.flipped_share)
            said = _said(member, Path(scratch) / "model")
        lines.append([adapted.name, "+".join(scheme.value for scheme in schemes), *said, flips])
    return lines


def _said(member: Member, model: Path) -> list[str]:
    """Payload under the targets (the worst) and in full precision, with exact intervals; facts under the targets."""
    counts = measured(model, LABELS, facts_held=member.facts)
    payloads = [count for count in counts if member.scenario and count.what == member.scenario.value]
    worst = max((c for c in payloads if c.scheme in member.targets), key=lambda count: count.hits)
    full = next(count for count in payloads if count.scheme == "full")
    facts = [100 * c.hits / c.asked for c in counts if c.what == "facts" and c.scheme in member.targets]
    return [_rate(worst), _rate(full), f"{min(facts):.1f} %" if facts else "-"]


def _rate(count: Count) -> str:
    rate = rates_of([count])[0]
    return f"{count.hits} of {count.asked} [{100 * rate.low:.1f}, {100 * rate.high:.1f}] %"


if __name__ == "__main__":
    sys.exit(main())
