"""`quantguard scan`."""

from __future__ import annotations

from pathlib import Path

import click

from quantguard.cli.environment import enter_sealed_room
from quantguard.cli.options import DIRECTORY, common, examples
from quantguard.cli.progress import progress_shown
from quantguard.core.finding import Severity
from quantguard.core.verdict import ExitCode


@click.command(
    epilog=examples("""
quantguard scan ./model
quantguard scan ./model --fail-on medium --output json=scan.json --output md=scan.md
""")
)
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--fail-on",
    type=click.Choice([severity.value for severity in Severity]),
    default=Severity.HIGH.value,
    show_default=True,
    help="The mildest finding that makes the exit code 1.",
)
@common
def scan(*, directory: Path, fail_on: str, outputs: tuple[str, ...], device: str, seed: int, quiet: bool) -> int:
    """Look for weights prepared for a quantizer, and for files that must not be there.

    Reads the safetensors of DIRECTORY one tensor at a time; the model is never built and nothing in it is run.

    Exit code 0: nothing at or above --fail-on; 1: findings; 2: could not tell.
    """
    del seed  # the scan is not random; the option is common to all commands
    enter_sealed_room()
    from quantguard.checkpoint.digest import model_digest
    from quantguard.models.device import resolve_device
    from quantguard.report.facts import ReportFacts
    from quantguard.report.terminal import findings_table
    from quantguard.report.write import parse_output, write_reports
    from quantguard.scan.scan import scan as scan_directory

    files = [parse_output(output) for output in outputs]
    with progress_shown(quiet=quiet) as progress:
        found = scan_directory(directory, device=resolve_device(device), progress=progress)
    digest = model_digest(directory) if found.tensors else ""
    write_reports(ReportFacts(str(directory), model_digest=digest, findings=found.findings), files)
    if not quiet:
        from rich.console import Console

        console = Console()
        if found.findings:
            console.print(findings_table(found.findings))
        console.print(f"{len(found.findings)} findings in {found.tensors} linear weights of {found.weights} elements")
    failing = any(finding.severity.at_least(Severity(fail_on)) for finding in found.findings)
    return ExitCode.BLOCKED if failing else ExitCode.PASSED
