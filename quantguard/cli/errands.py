"""Errands (`quantguard.core.errand`), each kind done in a process of its own that opens no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

import click

from quantguard.cli.environment import (
    engine_environment,
    executor_image,
    judge_endpoint,
    judge_environment,
    judge_key,
    stay_quiet,
)
from quantguard.cli.options import DIRECTORY, FILE
from quantguard.cli.progress import printable, progress_shown
from quantguard.cli.spawn import spawn
from quantguard.core.errand import ErrandKind
from quantguard.core.errors import QuantGuardError
from quantguard.core.verdict import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quantguard.evidence.errands import Errands
    from quantguard.policy.load import LoadedPolicy


@dataclass(frozen=True, slots=True)
class JudgeGiven:
    """What the command line says of the judge; None: its environment, or the policy."""

    endpoint: str | None = None
    key_file: Path | None = None


THE_POLICYS: Final = JudgeGiven()


@click.command(
    hidden=True, epilog="\b\nExample:\n  quantguard errand judge --policy policy.yaml --errands work/errands"
)
@click.argument("kind", type=click.Choice([kind.value for kind in ErrandKind]))
@click.option("--policy", "policy_file", required=True, type=FILE)
@click.option("--errands", "root", required=True, type=DIRECTORY)
@click.option("--quiet", is_flag=True)
def errand(*, kind: str, policy_file: Path, root: Path, quiet: bool) -> int:
    """Do every open errand of one KIND. The gate and verify start this themselves."""
    from quantguard.evidence.errands import Errands
    from quantguard.policy.load import load_policy

    return do_errands(ErrandKind(kind), Errands(root), load_policy(policy_file), quiet=quiet)


def do_errands(kind: ErrandKind, errands: Errands, policy: LoadedPolicy, *, quiet: bool) -> ExitCode:
    """Do, in this process, what is asked; why something could not be done is left in its outcome, and told."""
    stay_quiet()
    match kind:
        case ErrandKind.JUDGE:
            problems = _judge(errands, policy, quiet=quiet)
        case ErrandKind.EXECUTE:
            problems = _execute(errands, quiet=quiet)
        case _:
            assert_never(kind)
    for problem in problems:
        click.echo(f"quantguard: {printable(problem)}", err=True)
    return ExitCode.INCONCLUSIVE if problems else ExitCode.PASSED


def _judge(errands: Errands, policy: LoadedPolicy, *, quiet: bool) -> tuple[str, ...]:
    from quantguard.judge.openai import Address, OpenAIJudge
    from quantguard.judge.run import judge_errands, leave_problem

    asked = policy.policy.judge()
    if asked is None:
        return ()
    try:
        judge = OpenAIJudge(Address(judge_endpoint() or asked.endpoint, asked.model, judge_key()))
    except QuantGuardError as error:
        leave_problem(errands, error)
        return (str(error),)
    try:
        with progress_shown(quiet=quiet) as progress:
            return judge_errands(errands, judge, model=asked.model, concurrency=asked.concurrency, progress=progress)
    finally:
        judge.close()


def _execute(errands: Errands, *, quiet: bool) -> tuple[str, ...]:
    from quantguard.execute.errands import execute_errands

    with progress_shown(quiet=quiet) as progress:
        return execute_errands(errands, executor_image(), progress=progress)


def spawn_errands(
    kinds: Iterable[ErrandKind], errands: Errands, policy: Path, given: JudgeGiven, *, quiet: bool
) -> None:
    """Do what is asked of each kind in a process of its own. What goes wrong there is found when it is settled."""
    for kind in kinds:
        arguments = ["errand", kind.value, "--policy", str(policy), "--errands", str(errands.root)]
        spawn(f"{kind.value} errand", [*arguments, *(["--quiet"] if quiet else [])], errand_environment(kind, given))


def errand_environment(kind: ErrandKind, given: JudgeGiven) -> dict[str, str]:
    """What a process that does errands of this kind is told of the outside."""
    match kind:
        case ErrandKind.JUDGE:
            return judge_environment(given.endpoint, given.key_file)
        case ErrandKind.EXECUTE:
            return engine_environment()
        case _:
            assert_never(kind)
