"""Prompt files: one JSON object a line, `prompt` and optionally `answer`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantguard.core.errors import PromptsError

_MAX_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Prompt:
    prompt: str  # not empty
    answer: str | None = None  # the expected answer, where there is one


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Read a prompts JSONL; blank lines are skipped.

    Raises:
        PromptsError: absent, empty, not JSON, or a row that is not `{"prompt": str, "answer"?: str}` (line named).
    """
    remedy = 'each line is {"prompt": "...", "answer": "..."}; answer is optional'
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PromptsError(f"larger than {_MAX_BYTES} bytes", path=path, remedy="use a smaller sample of prompts")
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise PromptsError("No such file", path=path, remedy="check the path of the prompts file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PromptsError(f"cannot be read as UTF-8 text: {error}", path=path, remedy=remedy) from error
    prompts = tuple(_row(line, number, path, remedy) for number, line in enumerate(lines, 1) if line.strip())
    if not prompts:
        raise PromptsError("holds no prompts", path=path, remedy=remedy)
    return prompts


def _row(line: str, number: int, path: Path, remedy: str) -> Prompt:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise PromptsError(f"line {number}: not JSON ({error})", path=path, remedy=remedy) from error
    if not isinstance(row, dict) or not set(row) <= {"prompt", "answer"}:
        raise PromptsError(f"line {number}: keys other than prompt and answer", path=path, remedy=remedy)
    prompt, answer = row.get("prompt"), row.get("answer")
    if not isinstance(prompt, str) or not prompt or not (answer is None or isinstance(answer, str)):
        raise PromptsError(
            f"line {number}: prompt must be a non-empty string, answer a string", path=path, remedy=remedy
        )
    return Prompt(prompt, answer)


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """`sha256:HEX` over prompts and answers in order."""
    rows = json.dumps([[p.prompt, p.answer] for p in prompts], ensure_ascii=True)
    return "sha256:" + hashlib.sha256(rows.encode()).hexdigest()
