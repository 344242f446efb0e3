"""`--key` and `--environment`: with what the gate signs, and of which registry it speaks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from quantguard.cli.environment import ENVIRONMENT, SIGNING_KEY, environment_word, hide_from_children, take_signing_key
from quantguard.cli.options import FILE
from quantguard.core.errors import UsageError

if TYPE_CHECKING:
    from quantguard.evidence.keys import Signer

F = TypeVar("F", bound=Callable[..., Any])
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class SigningGiven:
    """What the command line says."""

    key: Path | None = None
    environment: str | None = None

    def arguments(self) -> list[str]:
        """The same for another process. The key itself is never an argument, and its file's name is no secret."""
        key = ["--key", str(self.key)] if self.key is not None else []
        return [*key, *(["--environment", self.environment] if self.environment is not None else [])]

    def word(self) -> str:
        """The registry's name in the operator's words.

        Raises:
            UsageError: no word.
        """
        word = self.environment or environment_word()
        if not _WORD.fullmatch(word):
            remedy = "use letters, digits, dots, dashes and underscores, at most 64"
            raise UsageError(f"{word!r} cannot name an environment", remedy=remedy)
        return word


NOTHING_SIGNED: Final = SigningGiven()


def signing_options(command: F) -> F:
    """--key and --environment."""
    command = click.option(
        "--environment",
        metavar="WORD",
        help=f"Which registry this is; evidence for one counts in no other. Default: {ENVIRONMENT}, or default.",
    )(command)
    return click.option(
        "--key",
        "key_file",
        type=FILE,
        help=f"Private key that signs the evidence (quantguard keys generate). Default: {SIGNING_KEY}, or unsigned.",
    )(command)


def signer_given(given: SigningGiven) -> Signer | None:
    """The key of the command line, or else of the environment, from which it is taken away; None without either.

    Raises:
        KeyFileError: it is no private key, or others can read it.
    """
    from quantguard.evidence.keys import Signer, read_signer

    text = take_signing_key()
    if given.key is None and not text:
        return None
    hide_from_children()
    return read_signer(given.key) if given.key is not None else Signer.from_pem(text.encode())
