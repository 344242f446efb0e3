"""`quantguard gate`: the three rooms in a row, each a process of its own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import click

from quantguard.cli.environment import (
    enter_sealed_room,
    hide_from_children,
    registry_environment,
    sealed_environment,
    stay_quiet,
    take_judge_settings,
    today,
    tracking_uri,
)
from quantguard.cli.errands import THE_POLICYS, JudgeGiven, do_errands, errand_environment
from quantguard.cli.options import DIRECTORY, common, examples, judge_options, waivers_option
from quantguard.cli.presets import POLICY
from quantguard.cli.progress import printable, progress_shown
from quantguard.cli.signing import NOTHING_SIGNED, SigningGiven, require_usable, signing_given, signing_options
from quantguard.cli.spawn import spawn
from quantguard.cli.waivers import show_waivers
from quantguard.core.errand import ErrandKind
from quantguard.core.model import LocalDirectory, parse_model_ref
from quantguard.core.verdict import ExitCode, Subject, Verdict

if TYPE_CHECKING:
    from quantguard.core.verdict import GateOutcome
    from quantguard.gate.work import Allowed, Work


# What every job keeps, by format.
REPORTS = (
    ("html", "report.html"),
    ("json", "report.json"),
    ("md", "report.md"),
    ("sarif", "report.sarif"),
    ("junit", "junit.xml"),
    ("annotations", "annotations.txt"),
)


class Stage(Enum):
    FETCH = "fetch"
    ASSESS = "assess"
    JUDGE = ErrandKind.JUDGE.value  # only where the policy names a judge, between two runs of assess
    EXECUTE = ErrandKind.EXECUTE.value  # only where it has benchmarks of kind code, as the judge
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line, as each room is given it."""

    ref: str
    policy: Path
    tracking_uri: str | None
    device: str
    seed: int
    quiet: bool
    judge: JudgeGiven = THE_POLICYS
    signing: SigningGiven = NOTHING_SIGNED
    waivers: Path | None = None


@click.command(
    epilog=examples("""
quantguard gate models:/assistant/3 --policy policies/standard.yaml --tracking-uri http://mlflow:5000
quantguard gate ./model --policy policies/standard.yaml --output md=report.md
quantguard gate models:/assistant/3 --policy policies/standard.yaml --waivers waivers.yaml
quantguard gate models:/assistant/3 --policy policies/standard.yaml --stage assess --work ./work
""")
)
@click.argument("ref", metavar="MODEL")
@click.option(
    "--policy", "policy_file", required=True, type=POLICY, help="What the model must show: a file or a preset."
)
@waivers_option
@click.option("--tracking-uri", "given_uri", help="MLflow server. Default: MLFLOW_TRACKING_URI.")
@click.option("--work", "root", type=DIRECTORY, help="Where the job's files go; a rerun there resumes.")
@click.option("--stage", type=click.Choice([s.value for s in Stage]), help="Run one room only.")
@signing_options
@judge_options
@common
def gate(
    *,
    ref: str,
    policy_file: Path,
    waivers_file: Path | None,
    given_uri: str | None,
    root: Path | None,
    stage: str | None,
    signing: SigningGiven,
    judge_endpoint: str | None,
    judge_key_file: Path | None,
    outputs: tuple[str, ...],
    device: str,
    seed: int,
    quiet: bool,
) -> int:
    """Scan, measure, repair and judge one MODEL, and do in the registry what the policy says.

    MODEL is models:/NAME/VERSION, or a directory (no registry: verdict only). Weights are opened in a process that has
    no network and no credential. Killed anywhere and run again, it goes on where it was.

    Exit code 0: promoted (for a directory: it passes as it is); 1: blocked; 2: could not tell.
    """
    from quantguard.gate.work import Work, default_root, make_job
    from quantguard.policy.load import load_policy
    from quantguard.report.write import parse_output

    files = [parse_output(output) for output in outputs]
    signing.word()
    policy = load_policy(policy_file)
    job = make_job(ref, policy, seed=seed)
    work = Work((root or default_root(job, Path("quantguard-work"))).absolute(), job, policy)
    work = replace(work, allowed=_allowed(waivers_file, work))
    judge = JudgeGiven(judge_endpoint, judge_key_file)
    asked = Asked(ref, policy_file, tracking_uri(given_uri), device, seed, quiet, judge, signing, waivers_file)
    code = run_stage(Stage(stage), work, asked) if stage is not None else run_all(work, asked)
    if stage not in (Stage.FETCH.value, Stage.JUDGE.value, Stage.EXECUTE.value) and is_assessed(work):
        report(work, files, quiet=quiet or stage is not None)
    return code


def _allowed(file: Path | None, work: Work) -> Allowed | None:
    """The waivers that were named on the command line. No other place is looked in, and least of all the model's."""
    if file is None:
        return None
    from quantguard.gate.work import Allowed
    from quantguard.policy.waivers_file import load_waivers, require_apart

    ref, day = parse_model_ref(work.asked.ref), today()
    for model in (ref.path if isinstance(ref, LocalDirectory) else None, work.model):
        require_apart(file, model, Path.cwd())
    return Allowed(load_waivers(file, work.policy.policy, day), day)


def run_all(work: Work, asked: Asked) -> ExitCode:
    """Fetch, assess, publish, each in a process of its own; stops at the first that does not finish."""
    hide_from_children()
    require_usable(asked.signing, work.policy)
    (work.evidence / "outcome.json").unlink(missing_ok=True)  # of an earlier run; assess makes it again
    work.errands.forget_awaited()
    shutil.rmtree(work.report, ignore_errors=True)
    code = _spawn(Stage.FETCH, work, asked)
    if code is not ExitCode.PASSED:
        return code
    code = _spawn(Stage.ASSESS, work, asked)
    for _ in Subject:  # each set of bytes may await errands once
        if is_assessed(work) or (awaited := work.errands.awaited()) is None:
            break
        for kind in awaited.kinds:
            _spawn(Stage(kind.value), work, asked)  # what goes wrong there is found when it is settled
        code = _spawn(Stage.ASSESS, work, asked)
    if not is_assessed(work):
        return code if code is not ExitCode.PASSED else ExitCode.INCONCLUSIVE
    return _spawn(Stage.PUBLISH, work, asked)


def _spawn(stage: Stage, work: Work, asked: Asked) -> ExitCode:
    arguments = ["gate", asked.ref, "--policy", str(asked.policy), "--work", str(work.root), "--stage", stage.value]
    arguments += ["--waivers", str(asked.waivers)] if asked.waivers is not None else []
    arguments += ["--device", asked.device, "--seed", str(asked.seed), *(["--quiet"] if asked.quiet else [])]
    arguments += asked.signing.arguments() if stage is Stage.PUBLISH else []
    return spawn(f"{stage.value} stage", arguments, _environment(stage, work, asked))


def _environment(stage: Stage, work: Work, asked: Asked) -> dict[str, str]:
    """What the process of a stage is told of the outside."""
    match stage:
        case Stage.FETCH | Stage.PUBLISH:
            return registry_environment(asked.tracking_uri, signs=stage is Stage.PUBLISH)
        case Stage.ASSESS:
            work.scratch.mkdir(parents=True, exist_ok=True)
            return sealed_environment(work.scratch)
        case Stage.JUDGE:
            return errand_environment(ErrandKind.JUDGE, asked.judge)
        case Stage.EXECUTE:
            return errand_environment(ErrandKind.EXECUTE, asked.judge)
        case _:
            assert_never(stage)


def run_stage(stage: Stage, work: Work, asked: Asked) -> ExitCode:
    match stage:
        case Stage.FETCH:
            return _fetch(work, asked)
        case Stage.ASSESS:
            return _assess(work, asked)
        case Stage.JUDGE:
            take_judge_settings(asked.judge.endpoint, asked.judge.key_file)
            return do_errands(ErrandKind.JUDGE, work.errands, work.policy, quiet=asked.quiet)
        case Stage.EXECUTE:
            return do_errands(ErrandKind.EXECUTE, work.errands, work.policy, quiet=asked.quiet)
        case Stage.PUBLISH:
            return _publish(work, asked)
        case _:
            assert_never(stage)


def _fetch(work: Work, asked: Asked) -> ExitCode:
    stay_quiet()
    from quantguard.gate.fetch import fetch
    from quantguard.gate.registries import registry_for

    with progress_shown(quiet=asked.quiet) as progress:
        fetch(work, registry_for(asked.ref, asked.tracking_uri), progress=progress)
    return ExitCode.PASSED


def _assess(work: Work, asked: Asked) -> ExitCode:
    network = "none" if enter_sealed_room() else "reachable"  # before torch starts its threads
    from quantguard.gate.assess import Room, assess
    from quantguard.gate.errands import AwaitsErrands
    from quantguard.models.device import resolve_device

    if network == "reachable" and not asked.quiet:
        click.echo("assess: this system does not let a process give up the network; the evidence says so", err=True)
    try:
        with progress_shown(quiet=asked.quiet) as progress:
            assessment = assess(work, Room(resolve_device(asked.device), network, progress))
    except AwaitsErrands as awaits:
        if not asked.quiet:
            click.echo(f"assess: {awaits}", err=True)
        return ExitCode.INCONCLUSIVE
    return exit_code(assessment.outcome, asked.ref)


def _publish(work: Work, asked: Asked) -> ExitCode:
    stay_quiet()
    from quantguard.gate.publish import decided, publish
    from quantguard.gate.registries import registry_for

    signing = signing_given(asked.signing, work.policy, asked.tracking_uri)
    sign = None if signing is None else signing.sign
    with progress_shown(quiet=asked.quiet) as progress:
        publish(work, registry_for(asked.ref, asked.tracking_uri), sign=sign, progress=progress)
    if signing is None and not asked.quiet:
        click.echo("publish: the evidence is not signed (quantguard keys generate makes a key; give --key)", err=True)
    return exit_code(decided(work, work.require_fetched()), asked.ref)


def exit_code(outcome: GateOutcome, ref: str) -> ExitCode:
    """0 only where what the user goes on to use has passed."""
    verdict = outcome.verdict_for(registered=not isinstance(parse_model_ref(ref), LocalDirectory))
    match verdict:
        case Verdict.PROMOTE:
            return ExitCode.PASSED
        case Verdict.BLOCK:
            return ExitCode.BLOCKED
        case Verdict.HOLD:
            return ExitCode.INCONCLUSIVE
        case _:
            assert_never(verdict)


def is_assessed(work: Work) -> bool:
    """Whether the second room has left its outcome."""
    return (work.evidence / "outcome.json").exists()


def report(work: Work, files: list[tuple[str, Path]], *, quiet: bool) -> None:
    """Write the reports that were asked for, and those that every job keeps; print the table unless `quiet`."""
    from quantguard.gate.facts import report_facts
    from quantguard.report.write import write_reports

    facts = report_facts(work)
    write_reports(facts, [*files, *((name, work.report / file) for name, file in REPORTS)])
    if quiet:
        return
    from rich.console import Console

    from quantguard.report.terminal import measurements_table

    Console().print(measurements_table(facts.original, facts.hardened))
    show_waivers(facts)
    if facts.outcome is not None:
        _explain(facts.outcome, work)
    for event in facts.registry_events:
        click.echo(f"registry: {event}")
    click.echo(f"report: {work.report / 'report.md'}, and with pictures {work.report / 'report.html'}")


def _explain(outcome: GateOutcome, work: Work) -> None:
    """The verdict of each set of bytes, and what kept it from being promoted."""
    from quantguard.gate.work import read_assessment

    decisions = [("original", outcome.original), ("hardened", outcome.hardened)]
    for name, decision in decisions:
        if decision is None:
            continue
        click.secho(f"{name}: {decision.verdict.value}", bold=True)
        for reason in decision.failures():
            click.echo(f"  {reason.outcome.value}: {printable(reason.sentence())}")
    click.echo(read_assessment(work).hardening_note)
    if outcome.promoted is Subject.HARDENED:
        click.echo(f"the hardened checkpoint is in {work.hardened}")
