"""`quantguard check`."""

from __future__ import annotations

from pathlib import Path

import click

from quantguard.cli.environment import git_environment, now, pull_request_base, stay_quiet, tracking_uri
from quantguard.cli.options import DIRECTORY, FILE, environment_option, examples


@click.command(
    epilog=examples("""
quantguard check
quantguard check --base origin/release --tracking-uri http://mlflow:5000
quantguard check --key gate.pub.pem --tracking-uri http://mlflow:5000
quantguard check --output annotations=check.txt --output sarif=check.sarif --output md=check.md
""")
)
@click.option(
    "--base",
    metavar="REF",
    help="The branch to merge into. Default: origin/$GITHUB_BASE_REF where that is set, else origin/main, else main.",
)
@click.option(
    "--manifest", type=FILE, metavar="FILE", help="Default: quantguard.yaml at the top of the checkout, if it is there."
)
@click.option(
    "--tracking-uri",
    "given_uri",
    metavar="URI",
    help="The MLflow server of pinned models. Default: MLFLOW_TRACKING_URI.",
)
@click.option(
    "--key",
    type=DIRECTORY,
    metavar="PUB",
    help="Whose signatures of evidence count: a public key, a directory of them, or a keyring in YAML. Default: what "
    "`keys` of the base branch's manifest names.",
)
@environment_option
@click.option(
    "--allow-looser", is_flag=True, help="A looser limit is a warning: somebody who may allow it has done so."
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="FORMAT=FILE",
    help="Also write a report: annotations=, sarif=, md= or json=FILE. May be given several times.",
)
@click.option("--quiet", is_flag=True, help="Print nothing; reports, errors and the exit code stay.")
def check(
    *,
    base: str | None,
    manifest: Path | None,
    given_uri: str | None,
    key: Path | None,
    environment: str,
    allow_looser: bool,
    outputs: tuple[str, ...],
    quiet: bool,
) -> int:
    """Check a change of policies and pinned models, before it is merged.

    Compares the checkout around the working directory with the base branch: every policy is valid, a limit that became
    looser is called out line by line, and every model pinned in the manifest exists and was promoted by the gate. What
    the base branch says governs. Runs nothing of the checkout and needs no GPU.

    Exit code 0: nothing to change; 1: something to change, or to be allowed; 2: could not tell; 3: no policy and no
    manifest; 4: no checkout, or the base is not in it.
    """
    stay_quiet()
    from quantguard.check.check import Request
    from quantguard.check.check import check as check_change
    from quantguard.check.render import FORMATS, render_text, write_outputs
    from quantguard.report.outputs import parse_outputs

    files = parse_outputs(outputs, FORMATS, "a check")
    request = Request(
        Path.cwd(), _bases(base), manifest, tracking_uri(given_uri), allow_looser, now(), key, environment
    )
    result = check_change(request, git_environment())
    write_outputs(result, files)
    if not quiet:
        click.echo(render_text(result), nl=False)
    return result.answer.exit_code


def _bases(given: str | None) -> tuple[str, ...]:
    """Refs to compare with, of which the first that is there is taken."""
    if given is not None:
        return (given,)
    branch = pull_request_base()
    return (f"origin/{branch}",) if branch is not None else ("origin/main", "main")
