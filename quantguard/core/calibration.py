"""Where calibration prompts come from: the built-in neutral set, the model itself, or a user's file.

A source is one word: `neutral`, `self`, or the path of a prompts JSONL.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantguard.core.bundled import named_file
from quantguard.core.errors import PromptsError
from quantguard.core.prompts import Prompt, prompts_digest, read_prompts

NEUTRAL: Final = "neutral"
SELF: Final = "self"
GIVEN: Final = "given"  # source of prompts that a caller hands over with no word of where they are from
NEUTRAL_VERSION: Final = 1
NEUTRAL_FOLDER: Final = Path(__file__).parent / "neutral"
DEFAULT_SAMPLES: Final = 512  # sampled from the model where no count is given


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Prompts and where they come from."""

    source: str  # neutral/VERSION, self/SEED, or the path of a file; GIVEN of a caller's own
    prompts: tuple[Prompt, ...]  # not empty

    @property
    def digest(self) -> str:
        """`sha256:HEX` over the prompts in order, as a policy's inputs are digested."""
        return prompts_digest(self.prompts)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Prompts that the model is still to give."""

    count: int  # at least 1


def read_calibration(source: str, count: int | None = None, *, folder: Path = Path()) -> CalibrationSet | Sampled:
    """The first `count` prompts of `source`, or all where it is None; `DEFAULT_SAMPLES` of the model itself.

    A file is looked for in `folder`; one that is called like one of the two words is given as `./neutral`.

    Raises:
        PromptsError: the file is no prompts JSONL, or there are fewer than `count` prompts.
    """
    if source == SELF:
        return Sampled(DEFAULT_SAMPLES if count is None else count)
    if source == NEUTRAL:
        path, name, prompts = NEUTRAL_FOLDER, f"{NEUTRAL}/{NEUTRAL_VERSION}", neutral_prompts()
    else:
        path, name = named_file(source, folder), source
        prompts = read_prompts(path)
    if count is not None and count > len(prompts):
        message = f"{len(prompts)} prompts are there, and {count} were asked for"
        raise PromptsError(message, path=path, remedy="ask for fewer, or give a larger file")
    return CalibrationSet(name, prompts[:count])


def source_word(source: str) -> str:
    """The word that `read_calibration` takes for the source of a set."""
    kind = source.partition("/")[0]
    return kind if kind in (NEUTRAL, SELF) else source


def neutral_prompts() -> tuple[Prompt, ...]:
    """The built-in set (`neutral/README.md`): its first N have the proportion of general and code prompts of all."""
    kinds = [read_prompts(NEUTRAL_FOLDER / f"{kind}.jsonl") for kind in ("general", "code")]
    places = [((row + 0.5) / len(rows), prompt) for rows in kinds for row, prompt in enumerate(rows)]
    return tuple(prompt for _, prompt in sorted(places, key=lambda placed: placed[0]))
