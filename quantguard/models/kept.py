"""Greedy answers kept on disk: what a model was asked once it is not asked again, also after a crash.

One file for each of what decides an answer besides the prompt: the model's bytes (with them its chat template), scheme,
device, libraries, and how long an answer may be. A line is added for each prompt as soon as its batch is
answered, so a run that is killed goes on with the next batch. How prompts were batched is not part of it: it decides no
more than the last bit of a logit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantguard.core.scheme import Scheme, scheme_label
from quantguard.evidence.records import digest_of

_MOST: Final = 512 * 2**20  # bytes of a file that are read


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """The answers of one model on one device."""

    folder: Path  # made when the first answers are written
    model_digest: str
    device: str  # as device_label tells it
    versions: tuple[tuple[str, str], ...]  # of the libraries that answer

    def of(self, scheme: Scheme | None, max_new_tokens: int) -> AnswerFile:
        """Those under one scheme, of at most `max_new_tokens` new tokens."""
        asked = [self.model_digest, scheme_label(scheme), self.device, self.versions, max_new_tokens]
        return AnswerFile(self.folder / f"{digest_of(asked).removeprefix('sha256:')[:32]}.jsonl")


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """One line a prompt: its sha256 and the answer."""

    path: Path

    def read(self) -> dict[str, str]:
        """Answers by `key_of` their prompts. Other lines, as a killed run leaves them, are left out."""
        try:
            with self.path.open(encoding="utf-8", errors="replace") as stream:
                lines = stream.read(_MOST).splitlines()
        except FileNotFoundError:
            return {}
        return dict(entry for entry in map(_entry, lines) if entry is not None)

    def add(self, answers: Iterable[tuple[str, str]]) -> None:
        """Write down (prompt, answer)s."""
        lines = "".join(json.dumps([key_of(prompt), answer]) + "\n" for prompt, answer in answers)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("\n" + lines)  # a line that a killed run left unfinished ends here


def key_of(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", errors="surrogatepass")).hexdigest()


def _entry(line: str) -> tuple[str, str] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match found:
        case [str() as key, str() as answer]:
            return key, answer
        case _:
            return None
