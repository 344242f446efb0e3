"""With what the gate signs, of which registry it speaks, and in which ledger it enters what it decided."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from quantguard.cli.environment import (
    ENVIRONMENT,
    LEDGER,
    LEDGER_ANCHORS,
    SIGNING_KEY,
    environment_word,
    git_environment,
    hide_from_children,
    signing_key,
    take_signing_key,
)
from quantguard.cli.options import FILE
from quantguard.core.errors import UsageError

if TYPE_CHECKING:
    from quantguard.evidence.keys import Signer
    from quantguard.evidence.ledger_anchors import AnchorPlace
    from quantguard.gate.signing import Signing
    from quantguard.policy.load import LoadedPolicy

F = TypeVar("F", bound=Callable[..., Any])
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class SigningGiven:
    """What the command line says."""

    key: Path | None = None
    environment: str | None = None
    ledger: Path | None = None
    anchors: tuple[str, ...] = ()  # as evidence.ledger_anchors.parse_anchor reads them

    def arguments(self) -> list[str]:
        """The same for another process. The key itself is never an argument, and its file's name is no secret."""
        key = ["--key", str(self.key)] if self.key is not None else []
        environment = ["--environment", self.environment] if self.environment is not None else []
        ledger = ["--ledger", str(self.ledger)] if self.ledger is not None else []
        anchors = [word for anchor in self.anchors for word in ("--ledger-anchor", anchor)]
        return [*key, *environment, *ledger, *anchors]

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
    """--key, --environment, --ledger and --ledger-anchor, which the command is given as `signing`."""

    @wraps(command)
    def with_signing(
        *,
        key_file: Path | None,
        environment: str | None,
        ledger_file: Path | None,
        ledger_anchors: tuple[str, ...],
        **others: Any,
    ) -> Any:
        return command(signing=SigningGiven(key_file, environment, ledger_file, ledger_anchors), **others)

    return _options(cast("F", with_signing))


def _options(command: F) -> F:
    command = click.option(
        "--ledger-anchor",
        "ledger_anchors",
        multiple=True,
        envvar=LEDGER_ANCHORS,
        metavar="KIND:WHERE",
        help=f"Where its head is kept besides: file:PATH, git:REPOSITORY or mlflow. Default: {LEDGER_ANCHORS}.",
    )(command)
    command = click.option(
        "--ledger",
        "ledger_file",
        type=FILE,
        envvar=LEDGER,
        help=f"File in which every decision is entered before an alias moves. Default: {LEDGER}, or none.",
    )(command)
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


def require_usable(given: SigningGiven, policy: LoadedPolicy) -> None:
    """What would stop publishing is told now, not after hours of measuring.

    Raises:
        UsageError: no such key, or not the ledger that the policy asks for.
    """
    from quantguard.evidence.keys import Signer, read_signer
    from quantguard.gate.ledger import require_ledger

    if given.key is not None:
        read_signer(given.key)
    elif text := signing_key():
        Signer.from_pem(text.encode())
    asked = policy.policy.ledger
    require_ledger(None if asked is None else asked.anchors, given.ledger, _places(given))
    if given.ledger is not None and given.key is None and not signing_key():
        raise UsageError("what a ledger holds is signed", remedy=f"give --key FILE, or set {SIGNING_KEY}")


def signing_given(given: SigningGiven, policy: LoadedPolicy, tracking_uri: str | None) -> Signing | None:
    """How the gate signs; None without a key.

    Raises:
        UsageError: as for `require_usable`.
    """
    from quantguard.gate.ledger import open_ledger
    from quantguard.gate.signing import Signing

    require_usable(given, policy)
    signer = signer_given(given)
    if signer is None:
        return None
    if given.ledger is None:
        return Signing(signer, given.word())
    places, environment = _places(given), git_environment()
    ledger = open_ledger(given.ledger, places, tracking_uri=tracking_uri, environment=environment)
    return Signing(signer, given.word(), ledger=ledger)


def _places(given: SigningGiven) -> tuple[AnchorPlace, ...]:
    from quantguard.evidence.ledger_anchors import parse_anchor

    return tuple(parse_anchor(text) for text in given.anchors)
