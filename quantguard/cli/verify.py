"""`quantguard verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantguard.cli.artifact import verify_artifact
from quantguard.cli.environment import enter_sealed_room
from quantguard.cli.errands import JudgeGiven
from quantguard.cli.measured import Asked, measure_apart, measure_here
from quantguard.cli.options import DIRECTORY, FILE, common, examples, judge_options
from quantguard.cli.presets import POLICY
from quantguard.core.verdict import Decision, ExitCode, GateOutcome, Subject, Verdict

if TYPE_CHECKING:
    from quantguard.core.measurement import Measurements


@click.command(
    epilog=examples("""
quantguard verify ./model --policy policies/standard.yaml
quantguard verify ./model --policy policies/standard.yaml --probes prompts.jsonl --output md=report.md
quantguard verify ./model --policy stricter.yaml --answers ./answers
quantguard verify ./model --artifact ./model-nf4 --output json=proof.json
""")
)
@click.argument("directory", type=DIRECTORY)
@click.option("--policy", "policy_file", type=POLICY, help="Schemes, scenarios, tasks and limits.")
@click.option("--probes", type=FILE, help="Prompts JSONL to use in place of the policy's, for every scenario.")
@click.option(
    "--artifact",
    type=DIRECTORY,
    metavar="DIR",
    help="A bitsandbytes checkpoint, to be proved the nearest rounding of the weights in DIRECTORY.",
)
@click.option(
    "--allow-cast",
    is_flag=True,
    help="With --artifact: accept weights that were converted to its dtype, with a loss, before they were quantized.",
)
@click.option(
    "--answers",
    type=DIRECTORY,
    metavar="DIR",
    help="Keep all answers there. What it holds already, of the same model and libraries, is not asked for again.",
)
@click.option("--into", type=DIRECTORY, hidden=True, help="Measure only, and leave measurements and errands there.")
@judge_options
@common
def verify(
    *,
    directory: Path,
    policy_file: Path | None,
    probes: Path | None,
    artifact: Path | None,
    allow_cast: bool,
    answers: Path | None,
    into: Path | None,
    judge_endpoint: str | None,
    judge_key_file: Path | None,
    outputs: tuple[str, ...],
    device: str,
    seed: int,
    quiet: bool,
) -> int:
    """Measure DIRECTORY in full precision and under every scheme of the policy, and compare with its limits.

    With --artifact, prove that a quantized checkpoint is made of DIRECTORY: every code is the nearest rounding of its
    weights, and no scale, level table, other tensor, setting or file differs. The artefact is never loaded.

    Exit code 0: every limit is met, the artefact is proved; 1: a limit is violated, something differs; 2: something
    could not be measured or told. The weights are not scanned: see `quantguard scan`.
    """
    _refuse_contradictions(policy_file, probes, artifact, outputs, allow_cast=allow_cast)
    if policy_file is None and answers is not None:
        raise click.UsageError("--answers are of measuring: give --policy FILE too")
    asked = None
    if policy_file is not None:
        _refuse_outputs(outputs)
        judge = JudgeGiven(judge_endpoint, judge_key_file)
        asked = Asked(directory, policy_file, probes, device, seed, quiet, judge, answers)
        if into is None and asked.needs_others():  # whoever asks them opens no weights
            code, measured = measure_apart(asked, artifact, allow_cast=allow_cast)
            return code if measured is None else _worst(code, _conclude(asked, measured, outputs))
    enter_sealed_room()
    code = ExitCode.PASSED
    if artifact is not None:
        reports = outputs if policy_file is None else ()
        code = verify_artifact(directory, artifact, reports, allow_cast=allow_cast, device=device, quiet=quiet)
    if asked is not None:
        measured = measure_here(asked, into)
        code = code if into is not None else _worst(code, _conclude(asked, measured, outputs))
    return code


def _worst(*codes: ExitCode) -> ExitCode:
    return next((code for code in (ExitCode.BLOCKED, ExitCode.INCONCLUSIVE) if code in codes), ExitCode.PASSED)


def _refuse_contradictions(
    policy_file: Path | None, probes: Path | None, artifact: Path | None, outputs: tuple[str, ...], *, allow_cast: bool
) -> None:
    if policy_file is None and artifact is None:
        raise click.UsageError("give --policy FILE to measure, --artifact DIRECTORY to prove, or both")
    if policy_file is None and probes is not None:
        raise click.UsageError("--probes are for measuring: give --policy FILE too")
    if artifact is None and allow_cast:
        raise click.UsageError("--allow-cast is about an artefact: give --artifact DIRECTORY too")
    if policy_file is not None and artifact is not None and outputs:
        raise click.UsageError("a report is about --policy or about --artifact: run once for each")


def _refuse_outputs(outputs: tuple[str, ...]) -> None:
    """What is wrong with them is told before anything is measured."""
    from quantguard.report.write import parse_output

    for output in outputs:
        parse_output(output)


def _conclude(asked: Asked, measured: Measurements, outputs: tuple[str, ...]) -> ExitCode:
    """What the policy says about the measurements: reports, table and exit code."""
    from quantguard.gate.facts import policy_used
    from quantguard.policy.decide import decide
    from quantguard.report.facts import ReportFacts
    from quantguard.report.write import parse_output, write_reports

    policy = asked.loaded()
    decision = decide(policy.policy, subject=Subject.ORIGINAL, findings=None, measurements=measured)
    used = policy_used(policy)
    outcome = GateOutcome(decision, None)
    facts = ReportFacts(str(asked.directory), measured.model_digest, used, outcome, original=measured)
    write_reports(facts, [parse_output(output) for output in outputs])
    if not asked.quiet:
        _show(measured, decision)
    return _CODES[decision.verdict]


def _show(measured: Measurements, decision: Decision) -> None:
    from rich.console import Console

    from quantguard.report.changes import change_text, changed
    from quantguard.report.hunts import confirmed, effect_text
    from quantguard.report.summary import judges, overuse_text, overused, weakness_text, weaknesses
    from quantguard.report.terminal import measurements_table
    from quantguard.report.text import visible

    Console().print(measurements_table(measured))
    for where, change in changed(measured)[:_SHOWN]:
        click.echo(f"changed by quantization: {where}: {change_text(change)}")
    for where, overuse in overused(measured)[:_SHOWN]:
        click.echo(f"more often than in full precision: {where}: “{visible(overuse.words)}” {overuse_text(overuse)}")
    for where, weakness in weaknesses(measured)[:_SHOWN]:
        click.echo(f"weakness: {where}: {visible(weakness_text(weakness))}")
    for line in judges(measured):
        click.echo(f"judge: {visible(line, _LONGEST)}")
    for where, effect, hunt in confirmed(measured)[:_SHOWN]:
        click.echo(f"trigger: {where}: “{visible(effect.trigger)}” {effect_text(effect, hunt)}")
    for reason in decision.failures():
        click.echo(f"{reason.outcome.value}: {reason.sentence()}")
    click.echo(f"verify: {_WORDS[decision.verdict]}")


_SHOWN = 12  # lines about changes, words, weaknesses and triggers each; a report has all of them
_LONGEST = 1000  # characters of a line
_WORDS = {
    Verdict.PROMOTE: "every limit is met",
    Verdict.BLOCK: "a limit is violated",
    Verdict.HOLD: "could not tell",
}
_CODES = {
    Verdict.PROMOTE: ExitCode.PASSED,
    Verdict.BLOCK: ExitCode.BLOCKED,
    Verdict.HOLD: ExitCode.INCONCLUSIVE,
}
