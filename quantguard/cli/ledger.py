"""`quantguard ledger`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantguard.cli.environment import git_environment, stay_quiet, tracking_uri
from quantguard.cli.options import DIRECTORY, FILE, examples
from quantguard.cli.progress import printable
from quantguard.core.verdict import ExitCode

if TYPE_CHECKING:
    from quantguard.evidence.ledger_anchors import Ledger
    from quantguard.evidence.ledger_entry import Entry
    from quantguard.evidence.ledger_verify import Verification

_ANCHOR = click.option(
    "--anchor",
    "anchors",
    multiple=True,
    metavar="KIND:WHERE",
    help="Where its head is kept besides: file:PATH, git:REPOSITORY or mlflow. May be given several times.",
)
_URI = click.option(
    "--tracking-uri", "given_uri", help="MLflow server, of --anchor mlflow. Default: MLFLOW_TRACKING_URI."
)
_OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
_LEDGER = click.argument("file", metavar="LEDGER", type=FILE)


@click.group()
def ledger() -> None:
    """Look into the ledger of what was decided.

    \b
    Example:
      quantguard ledger verify ledger.jsonl --key gate.pub.pem --anchor file:/mnt/audit/head.json
    """


@ledger.command(
    epilog=examples("""
quantguard ledger verify ledger.jsonl --key gate.pub.pem
quantguard ledger verify ledger.jsonl --key keys/ --anchor git:/srv/audit.git --anchor mlflow --output json
""")
)
@_LEDGER
@click.option("--key", required=True, type=DIRECTORY, help="Public key, directory of them, or keyring: who may sign.")
@_ANCHOR
@_URI
@_OUTPUT
def verify(*, file: Path, key: Path, anchors: tuple[str, ...], given_uri: str | None, output: str) -> int:
    """Say whether LEDGER is the one that was written.

    Every entry is signed and names the one before it, so edits, gaps and another order are named with their lines. What
    was cut off the end only an anchor misses.

    Exit code 0: it is; 1: it was changed; 2: an append is unfinished, or an anchor keeps nothing.
    """
    from quantguard.evidence.ledger_verify import verify_ledger
    from quantguard.evidence.trusted import read_trusted

    found = verify_ledger(file, read_trusted(key), _opened(file, anchors, given_uri).kept())
    if output == "json":
        _print_json(_verification(found))
    else:
        _tell(file, found)
        if not anchors:
            click.echo("note: no --anchor was given, so what was cut off the end is not missed")
        _conclude(found)
    if found.harmed:
        return ExitCode.BLOCKED
    return ExitCode.INCONCLUSIVE if found.problems else ExitCode.PASSED


def _tell(file: Path, found: Verification) -> None:
    click.echo(f"{file}: {found.entries} entries, head {found.head}")
    for where, sequence in found.anchored:
        click.echo(f"anchor {printable(where)}: entry {sequence} is in it")
    for problem in found.problems:
        line = f"line {problem.line}: " if problem.line else ""
        click.echo(f"{line}{problem.trouble.value}: {printable(problem.message)}")
    for note in found.notes:
        click.echo(f"note: {printable(note)}")


def _conclude(found: Verification) -> None:
    if found.harmed:
        click.secho("CHANGED: this is not the ledger that was written", bold=True)
    else:
        click.secho("COULD NOT TELL" if found.problems else "OK", bold=True)


def _verification(found: Verification) -> dict[str, Any]:
    return {
        "entries": found.entries,
        "head": found.head,
        "anchored": [{"anchor": where, "sequence": sequence} for where, sequence in found.anchored],
        "problems": [
            {"line": problem.line, "problem": problem.trouble.value, "message": problem.message}
            for problem in found.problems
        ],
        "notes": list(found.notes),
        "changed": found.harmed,
    }


@ledger.command(
    epilog=examples("""
quantguard ledger show ledger.jsonl --model assistant
quantguard ledger show ledger.jsonl --output json
""")
)
@_LEDGER
@click.option("--model", help="Entries of this registered model only.")
@_OUTPUT
def show(*, file: Path, model: str | None, output: str) -> int:
    """List the entries of LEDGER, unverified.

    Exit code 0: listed; 1: a line is no entry.
    """
    from quantguard.evidence.ledger import read_entries

    read = [(number, entry) for number, entry in enumerate(read_entries(file), start=1)]
    strangers = [number for number, entry in read if entry is None]
    entries = [entry for _, entry in read if entry is not None and model in (None, entry.decided.binding.identity.name)]
    if output == "json":
        from quantguard.evidence.ledger_entry import plain_entry

        _print_json([plain_entry(entry) for entry in entries])
    else:
        _table(entries)
    for number in strangers:
        click.echo(f"line {number} is no entry; run quantguard ledger verify", err=True)
    return ExitCode.BLOCKED if strangers else ExitCode.PASSED


def _table(entries: list[Entry]) -> None:
    """In columns as wide as they must be: a name that is folded cannot be searched for."""
    rows = [("entry", "time", "verdict", "model", "environment", "policy", "decision")]
    for entry in entries:
        told = entry.decided
        model, environment = printable(str(told.binding.identity)), printable(told.binding.environment)
        short = told.decision[: len("sha256:") + 12]
        rows.append((str(entry.sequence), entry.time, told.verdict.value, model, environment, told.policy, short))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@ledger.command(epilog=examples("quantguard ledger anchor ledger.jsonl --anchor file:/mnt/audit/head.json"))
@_LEDGER
@_ANCHOR
@_URI
def anchor(*, file: Path, anchors: tuple[str, ...], given_uri: str | None) -> int:
    """Bring each --anchor to the last entry of LEDGER.

    An anchor that keeps an entry which LEDGER does not have is left as it is: exit code 1. An append whose writer was
    killed is finished first.
    """
    from quantguard.evidence.ledger import finish

    opened = _opened(file, anchors, given_uri)
    if not opened.anchors:
        raise click.UsageError("name an anchor: --anchor file:PATH, git:REPOSITORY or mlflow")
    if sequence := finish(file):
        click.echo(f"entry {sequence}, whose writer had died, finished")
    for event in opened.anchor() or ("every anchor is there already",):
        click.echo(printable(event))
    return ExitCode.PASSED


def _opened(file: Path, anchors: tuple[str, ...], given_uri: str | None) -> Ledger:
    from quantguard.evidence.ledger_anchors import parse_anchor

    places = tuple(parse_anchor(text) for text in anchors)
    stay_quiet()
    from quantguard.gate.ledger import open_ledger

    return open_ledger(file, places, tracking_uri=tracking_uri(given_uri), environment=git_environment())


def _print_json(value: object) -> None:
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=True))
