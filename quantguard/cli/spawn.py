"""A part of a command in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import click

from quantguard.core.verdict import ExitCode


def spawn(part: str, arguments: Sequence[str], environment: Mapping[str, str]) -> ExitCode:
    """Run `quantguard ARGUMENTS` to its end, in `environment`; `part` is what it is called where it dies."""
    command = [sys.executable, "-m", "quantguard.cli.main", *arguments]
    code = subprocess.run(command, check=False, env=environment).returncode
    if code < 0:  # by what it dies of, it could not say anything itself
        click.echo(
            f"quantguard: the {part} was ended by {_signal_name(-code)} (where memory is short, free some;"
            " then run the same command again)",
            err=True,
        )
    return ExitCode(code) if code in set(ExitCode) else ExitCode.INCONCLUSIVE


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
