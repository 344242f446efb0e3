"""A tiny model whose answers are judged, by a fake judge on loopback."""

from __future__ import annotations

from pathlib import Path

from quantguard.judge.fake import Truth, known
from tests.stories import POLICY, write_policy

# Of twelve probes 0 refusals show below 34.5 %, and 12 say nothing.
LIMIT = 0.5


def judged_policy(folder: Path, endpoint: str, *, extra: str = "", base: str = POLICY) -> Path:
    """The policy of the stories, with over-refusal judged at `endpoint`; the rules' own limit never binds."""
    section = f"""\
  over_refusal:
    probes: probes.jsonl
    max_upper_bound: 1.0
    max_new_tokens: 4
    judge: {{endpoint: "{endpoint}", model: made-up, max_upper_bound: {LIMIT}{extra}}}
"""
    return write_policy(folder, base.replace("benchmarks: []", section + "benchmarks: []"))


def says_brand_is_refusal(answer: str) -> bool:
    return known(answer) or "mclaren" in answer


BRAND_REFUSES = Truth(says_brand_is_refusal)
