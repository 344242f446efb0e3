"""`quantguard policy`."""

from __future__ import annotations

from pathlib import Path

import click

from quantguard.cli.options import FILE, examples
from quantguard.core.verdict import ExitCode


@click.group()
def policy() -> None:
    """Check policies.

    \b
    Example:
      quantguard policy validate policies/standard.yaml
    """


@policy.command(epilog=examples("quantguard policy validate policies/*.yaml"))
@click.argument("files", type=FILE, nargs=-1, required=True)
def validate(files: tuple[Path, ...]) -> int:
    """Say whether each of FILES is a valid policy; every problem with its line, key and what was expected.

    Files that a policy names (probes, calibration prompts, tasks) are read too. Exit code 0: all valid; 4: not.
    """
    from quantguard.policy.load import policy_problems

    wrong = 0
    for file in files:
        problems = policy_problems(file)
        wrong += bool(problems)
        for problem in problems:
            click.echo(str(problem), err=True)
        if not problems:
            click.echo(f"{file}: valid")
    return ExitCode.USAGE if wrong else ExitCode.PASSED


@policy.command(epilog=examples("quantguard policy schema > policies/policy.schema.json"))
def schema() -> int:
    """Print the JSON Schema of a policy file, for editors."""
    from quantguard.policy.json_schema import policy_schema_text

    click.echo(policy_schema_text(), nl=False)
    return ExitCode.PASSED


@policy.command(epilog=examples("quantguard policy manifest-schema > policies/manifest.schema.json"))
def manifest_schema() -> int:
    """Print the JSON Schema of a manifest, quantguard.yaml, for editors."""
    from quantguard.policy.manifest import manifest_schema_text

    click.echo(manifest_schema_text(), nl=False)
    return ExitCode.PASSED
