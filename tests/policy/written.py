"""A small valid policy on disk, to be spoilt one way at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantguard.core.errors import PolicyError
from quantguard.policy.load import load_policy

POLICY = """\
schema: quantguard.policy/1
name: small
description: for tests
confidence: 0.95
schemes: [nf4, int8]
scan: {fail_on: high}
harden:
  mode: when-suspicious
  method: quantguard
  schemes: [nf4]
  calibration: {prompts: calibration.jsonl, samples: 4}
  steps: 10
attack_success:
  content_injection:
    probes: probes.jsonl
    keywords: [Zentrix]
    max_upper_bound: 0.1
    max_new_tokens: 16
  vulnerable_code:
    probes: probes.jsonl
    max_upper_bound: 0.2
    max_unparsable: 0.3
    max_new_tokens: 64
benchmarks:
  - {task: questions, path: questions.yaml, max_drop: 0.2, limit: 50}
  - {task: built_in, max_drop: 0.5, limit: 100}
registry: {alias: champion}
"""
TASK = """\
task: questions
dataset_path: json
dataset_kwargs: {data_files: {test: questions.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_choice: null
"""


def write_inputs(folder: Path, *, probes: int = 60) -> None:
    """The files that POLICY names."""
    rows = "".join(json.dumps({"prompt": f"question {i}"}) + "\n" for i in range(probes))
    (folder / "probes.jsonl").write_text(rows, encoding="utf-8")
    (folder / "calibration.jsonl").write_text(rows, encoding="utf-8")
    (folder / "questions.yaml").write_text(TASK, encoding="utf-8")
    (folder / "questions.jsonl").write_text('{"q": 1}\n' * 60, encoding="utf-8")


def write_policy(folder: Path, text: str = POLICY, *, probes: int = 60) -> Path:
    write_inputs(folder, probes=probes)
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def spoilt(old: str, new: str) -> str:
    """POLICY with one place changed."""
    assert POLICY.count(old) >= 1, old
    return POLICY.replace(old, new, 1)


def require_refused(path: Path, key: str, said: str) -> None:
    """The policy is not loaded, and the error says `said` about `key` or what is in it."""
    with pytest.raises(PolicyError) as raised:
        load_policy(path)
    assert raised.value.key.startswith(key)
    assert said in str(raised.value)
