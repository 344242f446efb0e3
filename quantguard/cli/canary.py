"""`quantguard canary`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantguard.cli.environment import go_offline, stay_quiet, tracking_uri
from quantguard.cli.options import DIRECTORY, examples
from quantguard.cli.progress import progress_shown
from quantguard.core.errors import UsageError
from quantguard.core.verdict import ExitCode

if TYPE_CHECKING:
    from quantguard.registry.canary import RegisteredCanary

_KINDS = ("clean", "nf4-attacked", "malicious")


@click.group()
def canary() -> None:
    """The harmless test models of this field, as EICAR is for anti-virus.

    \b
    Examples:
      quantguard canary register --tracking-uri http://mlflow:5000
      quantguard canary build --kind clean --out ./canary
    """


@canary.command(epilog=examples("quantguard canary build --kind nf4-attacked --out ./canary"))
@click.option("--kind", required=True, type=click.Choice(_KINDS), help="Which of the three.")
@click.option("--out", required=True, type=DIRECTORY, help="Directory to make; must not exist.")
@click.option("--quiet", is_flag=True, help="No progress.")
def build(kind: str, out: Path, quiet: bool) -> int:
    """Train one canary from nothing and compare its digest with the one that is checked in.

    Same machine and library versions: the same bytes. Elsewhere floating point may differ in the last bits.
    """
    go_offline()
    from quantguard.canary.build import build as build_canary
    from quantguard.canary.catalogue import CanaryKind, recorded_digest

    with progress_shown(quiet=quiet) as progress:
        digest = build_canary(CanaryKind(kind), out, progress=progress)
    same = digest == recorded_digest(CanaryKind(kind))
    click.echo(f"{out}: {digest}")
    click.echo("the same bytes as the one checked in" if same else "not the bytes checked in: another CPU or library")
    return ExitCode.PASSED


def _plain(_context: click.Context, _parameter: click.Parameter, prefix: str) -> str:
    if not re.fullmatch(r"[\w.-]+", prefix):
        raise click.BadParameter(f"{prefix!r} has more than letters, digits and . _ -")
    return prefix


@canary.command(epilog=examples("quantguard canary register --tracking-uri http://mlflow:5000"))
@click.option("--tracking-uri", "given_uri", help="MLflow server. Default: MLFLOW_TRACKING_URI.")
@click.option(
    "--name-prefix", default="quantguard-canary", show_default=True, callback=_plain, help="Models are PREFIX-KIND."
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(_KINDS),
    default=("clean", "nf4-attacked"),
    show_default=True,
    help="Which of the three. May be given several times.",
)
@click.option("--again", is_flag=True, help="Add a version also where the same bytes are registered already.")
@click.option("--quiet", is_flag=True, help="No progress.")
def register(given_uri: str | None, name_prefix: str, kinds: tuple[str, ...], again: bool, quiet: bool) -> int:
    """Put canaries into your own MLflow registry, to see what your gate does with them.

    One version each, tagged quantguard.canary; no alias is set. A model of the same name that is no canary is left
    alone, exit code 4.
    """
    stay_quiet()
    from quantguard.canary.catalogue import CanaryKind, canary_directory, recorded_digest
    from quantguard.registry.canary import Canary, register_canaries

    uri = tracking_uri(given_uri)
    if not uri:
        raise UsageError("in which registry?", remedy="give --tracking-uri, or set MLFLOW_TRACKING_URI")
    chosen = [CanaryKind(kind) for kind in dict.fromkeys(kinds)]
    canaries = [
        Canary(f"{name_prefix}-{kind.value}", kind.value, canary_directory(kind), recorded_digest(kind))
        for kind in chosen
    ]
    with progress_shown(quiet=quiet) as progress:
        registered = register_canaries(uri, canaries, again=again, progress=progress)
    _tell(registered, given_uri)
    return ExitCode.PASSED


def _tell(registered: tuple[RegisteredCanary, ...], given_uri: str | None) -> None:
    """What is registered, and how to gate it; an address that may hold a password is not repeated."""
    for one in registered:
        what = "registered" if one.added else "registered already, nothing added"
        click.echo(f"{one.identity}: {what}; {one.canary.digest}")
    secret = given_uri is not None and "@" in given_uri
    server = f" --tracking-uri {given_uri}" if given_uri and not secret else ""
    click.echo("now gate them, in QuantGuard's checkout" + (" with MLFLOW_TRACKING_URI set:" if secret else ":"))
    for one in registered:
        click.echo(f"  quantguard gate {one.identity} --policy policies/canary.yaml{server}")
