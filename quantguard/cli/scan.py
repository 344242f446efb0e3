"""`quantguard scan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from quantguard.cli.environment import enter_sealed_room
from quantguard.cli.options import DIRECTORY, common, examples
from quantguard.cli.progress import progress_shown
from quantguard.core.finding import Severity
from quantguard.core.verdict import ExitCode

if TYPE_CHECKING:
    from quantguard.scan.scan import Scan

EFFORTS = ("quick", "full")  # of quantguard.scan.scan.Effort, which imports torch: --help must feel instant


def _explain(context: click.Context, _option: click.Parameter, rule: str | None) -> None:
    """Tell what a rule means and end, before a directory is asked for."""
    if rule is None or context.resilient_parsing:
        return
    from quantguard.report.explain import explanation

    click.echo(explanation(rule), nl=False)
    context.exit()


@click.command(
    epilog=examples("""
quantguard scan ./model
quantguard scan ./model --output html=scan.html --output json=scan.json
quantguard scan ./model --effort quick --fail-on medium
quantguard scan --explain scan.boundary
""")
)
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--explain",
    metavar="RULE",
    is_eager=True,
    expose_value=False,
    callback=_explain,
    help="Tell what a rule means, its source, its false positives and what to do, then exit. `list` tells all rules.",
)
@click.option(
    "--fail-on",
    type=click.Choice([severity.value for severity in Severity]),
    default=Severity.HIGH.value,
    show_default=True,
    help="The mildest finding that makes the exit code 1.",
)
@click.option(
    "--effort",
    type=click.Choice(EFFORTS),
    default="full",
    show_default=True,
    help="How much is looked at; quick is for a first look and may miss what full finds.",
)
@click.option(
    "--layers",
    "most_layers",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="How many layers are shown, worst first.",
)
@common
def scan(
    *,
    directory: Path,
    fail_on: str,
    effort: str,
    most_layers: int,
    outputs: tuple[str, ...],
    device: str,
    seed: int,
    quiet: bool,
) -> int:
    """Look for weights prepared for a quantizer, and for files that must not be there.

    Reads the safetensors of DIRECTORY piece by piece; the model is never built and nothing in it is run. What is
    sampled is drawn anew in every run, unless --seed is given.

    Exit code 0: nothing at or above --fail-on; 1: findings; 2: could not tell.
    """
    given = click.get_current_context().get_parameter_source("seed") is not ParameterSource.DEFAULT
    enter_sealed_room()
    from quantguard.checkpoint.digest import model_digest
    from quantguard.models.device import resolve_device
    from quantguard.report.facts import ReportFacts
    from quantguard.report.write import parse_output, write_reports
    from quantguard.scan.scan import Effort
    from quantguard.scan.scan import scan as scan_directory

    files = [parse_output(output) for output in outputs]
    with progress_shown(quiet=quiet) as progress:
        found = scan_directory(
            directory,
            device=resolve_device(device),
            progress=progress,
            effort=Effort(effort),
            seed=seed if given else None,  # whoever knew which weights are sampled would prepare the others
        )
    digest = model_digest(directory) if found.tensors else ""
    facts = ReportFacts(str(directory), model_digest=digest, findings=found.findings, layers=found.layers)
    write_reports(facts, files)
    if not quiet:
        _show(found, most_layers)
    failing = any(finding.severity.at_least(Severity(fail_on)) for finding in found.findings)
    return ExitCode.BLOCKED if failing else ExitCode.PASSED


def _show(found: Scan, most_layers: int) -> None:
    from rich.console import Console

    from quantguard.report.terminal import findings_table, layers_table

    console = Console()
    if found.findings:
        console.print(findings_table(found.findings))
    if found.layers and most_layers:
        plain = not console.encoding.lower().startswith("utf")
        console.print(layers_table(found.layers, most=most_layers, plain=plain))
    count = len(found.findings)
    plural = "" if count == 1 else "s"
    told = [f"{count} finding{plural} in {found.tensors} linear weights of {found.weights} elements"]
    told += [f"what a rule means: quantguard scan --explain {found.findings[0].rule}"] if count else []
    console.print("\n".join(told), highlight=False, markup=False, soft_wrap=True)
