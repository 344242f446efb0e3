"""Lines for the job's log: groups, workflow commands, and what a container says with all its power taken away."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from quantguard.report.text import visible

_MOST = 4000  # characters of one line


def command(name: str, text: str = "") -> None:
    """Speak to the runner: `::name::text`, with what could end the command escaped."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    _write(f"::{name}::{escaped}")


@dataclass(slots=True)
class Log:
    """Writes to standard output; no secret passes, and no line of a container is a workflow command."""

    secrets: frozenset[str] = frozenset()
    last: dict[str, str] = field(default_factory=dict)  # by stage, what its container said last about a failure

    def mask(self) -> None:
        """Tell the runner what to hide in everything that comes later."""
        for secret in sorted(self.secrets):
            command("add-mask", secret)

    def say(self, text: str) -> None:
        _write(visible(self.redacted(text), _MOST))

    def error(self, text: str) -> None:
        command("error", visible(self.redacted(text), _MOST))

    def redacted(self, text: str) -> str:
        """`text` without secrets: the runner hides them too, but not in files."""
        if not self.secrets:
            return text
        longest_first = sorted(self.secrets, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), "***", text)

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Lines that the job's page folds together. Workflow commands inside it are not obeyed."""
        command("group", title)
        token = secrets.token_hex(16)  # who does not know it cannot make the runner listen again
        command("stop-commands", token)
        try:
            yield
        finally:
            _write(f"::{token}::")
            command("endgroup")

    def stream(self, stage: str, pieces: Iterable[bytes]) -> None:
        """Show the output of a container as it comes, line by line."""
        for line in _lines(pieces):
            self.say(line)
            if line.startswith("quantguard: "):
                self.last[stage] = self.redacted(line.removeprefix("quantguard: "))


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line.decode("utf-8", "replace").rstrip("\r") for line in whole)
        if len(rest) > 64 * _MOST:  # a line that never ends
            yield rest.decode("utf-8", "replace")
            rest = b""
    if rest:
        yield rest.decode("utf-8", "replace")


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
