"""Where probes come from: the built-in suite of a scenario, or a user's file.

A source is one word: `builtin`, or the path of a prompts JSONL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from quantguard.core.bundled import named_file
from quantguard.core.measurement import Scenario
from quantguard.core.prompts import Prompt, prompts_digest, read_prompts

BUILTIN: Final = "builtin"
SUITES_FOLDER: Final = Path(__file__).parent / "probes"
SUITE_VERSIONS: Final[Mapping[Scenario, int]] = MappingProxyType(
    {Scenario.CONTENT_INJECTION: 1, Scenario.OVER_REFUSAL: 1, Scenario.VULNERABLE_CODE: 1}
)


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """Probes of one scenario and what they are called."""

    suite: str  # builtin/SCENARIO/VERSION; empty of a user's file, which its digest names
    prompts: tuple[Prompt, ...]  # not empty

    @property
    def digest(self) -> str:
        """`sha256:HEX` over the prompts in order, as evidence and a policy's inputs name them."""
        return prompts_digest(self.prompts)


def read_probes(source: str, scenario: Scenario, *, folder: Path = Path()) -> ProbeSet:
    """The built-in suite of `scenario` where `source` is `builtin`, otherwise the file `source` in `folder`.

    A file that is called like the word is given as `./builtin`.

    Raises:
        PromptsError: the file is no prompts JSONL.
    """
    return builtin_suite(scenario) if source == BUILTIN else ProbeSet("", read_prompts(named_file(source, folder)))


def builtin_suite(scenario: Scenario) -> ProbeSet:
    """The suite that is written for `scenario` (`probes/README.md`), its rows in mixed order."""
    name = f"{BUILTIN}/{scenario.value}/{SUITE_VERSIONS[scenario]}"
    return ProbeSet(name, read_prompts(SUITES_FOLDER / f"{scenario.value}.jsonl"))
