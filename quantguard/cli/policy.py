"""`quantguard policy`."""

from __future__ import annotations

from pathlib import Path

import click

from quantguard.cli.options import examples
from quantguard.cli.presets import POLICY
from quantguard.cli.replay import replay_command
from quantguard.core.verdict import ExitCode


@click.group()
def policy() -> None:
    """Check policies, read them, compare them, and try them on what was measured.

    FILE may be the name of a preset: strict, standard or permissive.

    \b
    Examples:
      quantguard policy validate policies/standard.yaml
      quantguard policy diff standard mine.yaml
    """


@policy.command(epilog=examples("quantguard policy validate policies/*.yaml"))
@click.argument("files", type=POLICY, nargs=-1, required=True)
def validate(files: tuple[Path, ...]) -> int:
    """Say whether each of FILES is a valid policy; every problem with its line, column, key and what was expected.

    What a policy extends and the files that it names (probes, calibration prompts, tasks) are read too. Exit code 0:
    all valid; 4: not.
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


@policy.command(
    epilog=examples("""
quantguard policy show mine.yaml
quantguard policy show mine.yaml --effective
quantguard policy show standard --effective > mine.yaml
""")
)
@click.argument("file", type=POLICY)
@click.option(
    "--effective", is_flag=True, help="All that is in force, with what it extends and defaults, and from where."
)
def show(file: Path, *, effective: bool) -> int:
    """Print what FILE says, and beside it what it replaces in the policy that it extends."""
    from quantguard.policy.load import load_policy
    from quantguard.policy.show import effective_text, own_text

    loaded = load_policy(file)
    click.echo(effective_text(loaded) if effective else own_text(loaded), nl=False)
    return ExitCode.PASSED


@policy.command(
    epilog=examples("""
quantguard policy explain attack_success.over_refusal.max_upper_bound
quantguard policy explain counterfactual.max_ratio --policy mine.yaml
quantguard policy explain list
""")
)
@click.argument("rule")
@click.option("--policy", "file", type=POLICY, help="Also tell what this policy says of the rule, and where.")
def explain(rule: str, file: Path | None) -> int:
    """Tell what RULE measures, how its bound is found, and what to do where it is not met. `list` tells all rules."""
    from quantguard.policy.load import load_policy
    from quantguard.policy.show import rule_lines
    from quantguard.report.explain import explanation
    from quantguard.report.rules import known_as

    click.echo(explanation(rule, more="`quantguard policy explain list`"), nl=False)
    if file is not None:
        loaded = load_policy(file)
        lines = rule_lines(loaded, rule) or rule_lines(loaded, known_as(rule) or rule)
        click.echo("\n".join(["", "The policy", *(f"  {line}" for line in lines or ("says nothing of it",))]))
    return ExitCode.PASSED


@policy.command(
    epilog=examples("""
quantguard policy diff standard mine.yaml
quantguard policy diff old.yaml new.yaml --output json
""")
)
@click.argument("before", type=POLICY)
@click.argument("after", type=POLICY)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="On stdout.")
def diff(before: Path, after: Path, output: str) -> int:
    """Compare two policies rule by rule: is AFTER stricter than BEFORE, looser, or different?

    Looser: a model may be promoted that was not, or less is looked at. Different: the values do not say which. Files
    that both name are compared by what they hold. Exit code 0: equal or stricter; 1: looser or different.
    """
    from quantguard.policy.diff import diff as compared
    from quantguard.policy.diff import diff_json, diff_lines
    from quantguard.policy.load import load_policy

    made = compared(load_policy(before), load_policy(after))
    if output == "json":
        click.echo(diff_json(made), nl=False)
    else:
        click.echo("\n".join(diff_lines(made)))
    return made.exit_code


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


@policy.command(epilog=examples("quantguard policy waivers-schema > policies/waivers.schema.json"))
def waivers_schema() -> int:
    """Print the JSON Schema of a file of waivers, for editors."""
    from quantguard.policy.waivers_file import waivers_schema_text

    click.echo(waivers_schema_text(), nl=False)
    return ExitCode.PASSED


policy.add_command(replay_command)
