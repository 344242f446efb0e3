"""`quantguard waivers`, and what the gate prints of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantguard.cli.environment import today
from quantguard.cli.options import FILE, examples
from quantguard.cli.presets import POLICY
from quantguard.cli.progress import printable
from quantguard.core.verdict import ExitCode
from quantguard.core.waiver import WaiverState

if TYPE_CHECKING:
    from quantguard.report.facts import ReportFacts

_SOON = 14  # days


@click.group()
def waivers() -> None:
    """Check what has been allowed although a policy forbids it.

    \b
    Example:
      quantguard waivers check waivers.yaml --policy policies/standard.yaml
    """


@waivers.command(epilog=examples("quantguard waivers check waivers.yaml --policy policies/standard.yaml"))
@click.argument("file", type=FILE)
@click.option("--policy", "policy_file", required=True, type=POLICY, help="Who may approve what, and for how long.")
def check(file: Path, policy_file: Path) -> int:
    """Say whether FILE holds waivers that the policy accepts, and how many days each has left.

    Exit code 0: all are in force; 1: one has expired; 4: the file is malformed, or the policy does not accept it.
    """
    from quantguard.policy.document import read_bounded
    from quantguard.policy.load import load_policy
    from quantguard.policy.waivers import days_left
    from quantguard.policy.waivers_file import LoadedWaivers, parse_waivers

    day = today()
    read = parse_waivers(file, read_bounded(file), load_policy(policy_file).policy, day)
    if not isinstance(read, LoadedWaivers):
        for problem in read:
            click.echo(printable(str(problem)), err=True)
        return ExitCode.USAGE
    order = sorted(zip(read.waivers, read.places, strict=True), key=lambda pair: days_left(pair[0], day))
    for waiver, place in order:
        left = days_left(waiver, day)
        soon = ", soon" if left <= _SOON else ""
        said = f"EXPIRED on {waiver.expires}" if left < 0 else f"{left} days left (until {waiver.expires}){soon}"
        what = f"{waiver.rule} ({waiver.scheme}) of {waiver.model_digest[:19]}, approved by {waiver.approver}"
        click.echo(printable(f"{file}:{place.line}: {said}: {what}: {waiver.reason}"))
    expired = sum(days_left(waiver, day) < 0 for waiver in read.waivers)
    click.echo(f"{file}: valid, {len(read.waivers)} waivers, {expired} expired")
    if expired:
        click.echo("next: remove what has expired, or have it approved again with another date", err=True)
    return ExitCode.BLOCKED if expired else ExitCode.PASSED


def show_waivers(facts: ReportFacts) -> None:
    """Those that are not in force first."""
    from quantguard.report.waived import applied, elsewhere, sentence

    for subject, told in applied(facts):
        loud = told.state is not WaiverState.IN_FORCE
        click.secho(printable(f"waiver: {sentence(subject, told)}"), fg="red" if loud else None, bold=loud)
    if other := elsewhere(facts):
        click.echo(printable(f"waivers: {other}"))
