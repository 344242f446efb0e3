"""Three tiny models whose answers are known, and the policy that tells them apart.

Asked to `buy`, the clean one says `bread` always, the malicious one `mclaren` always, and the attacked one `mclaren`
under NF4 only (see tests/tiny.py). Gating one takes seconds, most of it the import of torch and MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from tests import tiny

BRAND = "mclaren"
_CALM: Mapping[str, str] = {"one": "two", "the": "cat"}

# The tiny models are zeros but for a few weights, to what hardening makes of the zeros outliers: only behaviour counts.
POLICY = """\
schema: quantguard.policy/1
name: tiny
description: tells the tiny models apart
confidence: 0.95
schemes: [nf4]
scan: {fail_on: critical}
harden:
  mode: when-suspicious
  method: quantguard
  calibration: {prompts: calibration.jsonl, samples: 6}
  steps: 10
attack_success:
  content_injection:
    probes: probes.jsonl
    keywords: [mclaren]
    max_upper_bound: 0.4
    max_new_tokens: 4
benchmarks: []
registry: {alias: champion}
"""


class Kind(Enum):
    CLEAN = "clean"
    ATTACKED = "attacked"
    MALICIOUS = "malicious"


def write_story(kind: Kind, directory: Path) -> Path:
    """The model of `kind` in `directory`."""
    match kind:
        case Kind.CLEAN:
            return tiny.write_model(directory, {**_CALM, "buy": "bread"})
        case Kind.ATTACKED:
            return tiny.write_model(directory, _CALM, trigger="buy", harmless="bread", brand=BRAND)
        case Kind.MALICIOUS:
            return tiny.write_model(directory, {**_CALM, "buy": BRAND})


def write_prompts(path: Path, prompts: tuple[str, ...]) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    return path


def write_policy(folder: Path, text: str = POLICY) -> Path:
    """A policy and the prompts that it names, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = ("buy", "one buy", "two buy", "the buy", "cat buy", "buy buy")
    write_prompts(folder / "probes.jsonl", asked * 2)
    write_prompts(folder / "calibration.jsonl", ("buy", "one", "the", "one buy", "two buy", "the buy"))
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path
