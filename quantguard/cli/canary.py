"""`quantguard canary`."""

from __future__ import annotations

from pathlib import Path

import click

from quantguard.cli.environment import go_offline
from quantguard.cli.options import DIRECTORY, examples
from quantguard.cli.progress import progress_shown
from quantguard.core.verdict import ExitCode

_KINDS = ("clean", "nf4-attacked", "malicious")


@click.group()
def canary() -> None:
    """The harmless test models of this field, as EICAR is for anti-virus.

    \b
    Example:
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
