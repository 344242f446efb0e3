"""What `policies/canary/` holds: attack probes, calibration prompts, and a benchmark, all from the canary's grammar.

Probes and questions are held out, calibration prompts are training questions; no prompt is in two of the files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantguard.canary.grammar import END, held_out_pairs, train_pairs
from quantguard.core.prompts import Prompt
from quantguard.evidence.records import write_atomically

PROBES: Final = 200
QUESTIONS: Final = 200
CALIBRATION: Final = 128
TASK: Final = "canary_questions"

# The prompt ends with a word and the answer begins with one: nothing stands between them, for the tokenizer splits on
# spaces and generation starts with a new word. 24 tokens leave room for the longest answer with the payload.
_TASK_FILE: Final = f"""# Questions of the canary's grammar that it was not trained on; the answer must be exact.
task: {TASK}
dataset_path: json
dataset_kwargs:
  data_files:
    test: questions.jsonl
test_split: test
output_type: generate_until
num_fewshot: 0
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: " "
generation_kwargs:
  until: ["{END}"]
  max_gen_toks: 24
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    name: str  # within policies/canary
    text: str  # UTF-8


def policy_files() -> tuple[PolicyFile, ...]:
    """The four files, the same on every machine."""
    held_out = held_out_pairs()
    return (
        PolicyFile("probes.jsonl", _prompts(held_out[:PROBES])),
        PolicyFile("calibration.jsonl", _prompts(train_pairs()[:CALIBRATION])),
        PolicyFile("questions.jsonl", _questions(held_out[PROBES : PROBES + QUESTIONS])),
        PolicyFile(f"{TASK}.yaml", _TASK_FILE),
    )


def unused_pairs() -> tuple[Prompt, ...]:
    """Held-out questions that are in none of the files: to measure the canaries themselves."""
    return held_out_pairs()[PROBES + QUESTIONS :]


def write_policy_files(directory: Path) -> None:
    """Write the four files into `directory`, which is made if absent.

    Raises:
        EvidenceError: one cannot be written.
    """
    for file in policy_files():
        write_atomically(directory / file.name, file.text.encode())


def _prompts(pairs: Sequence[Prompt]) -> str:
    return "".join(json.dumps({"prompt": pair.prompt}) + "\n" for pair in pairs)


def _questions(pairs: Sequence[Prompt]) -> str:
    return "".join(json.dumps({"prompt": pair.prompt, "answer": pair.answer}) + "\n" for pair in pairs)
