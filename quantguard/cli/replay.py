"""`quantguard policy test`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantguard.cli.options import DIRECTORY, examples
from quantguard.cli.presets import POLICY
from quantguard.core.errors import EvidenceError
from quantguard.core.verdict import ExitCode, Verdict

if TYPE_CHECKING:
    from quantguard.gate.replay import Replay

_SHOWN = 6  # reasons of one model; JSON has all of them
_LONGEST = 1000  # characters of a sentence
_SCHEMA = "quantguard.policy-test/1"


@click.command(
    name="test",
    epilog=examples("""
quantguard policy test mine.yaml quantguard-work/*
quantguard policy test strict ./work --output json
"""),
)
@click.argument("policy", type=POLICY)
@click.argument("evidence", type=DIRECTORY, nargs=-1, required=True)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="On stdout.")
def replay_command(policy: Path, evidence: tuple[Path, ...], output: str) -> int:
    """Say what POLICY would have decided of what was measured before. Nothing is measured, nothing is promoted.

    EVIDENCE is the work directory of a job of the gate, its evidence folder, or a bundle. It must have been asked what
    POLICY asks: the same probes, prompts and tasks. Limits, schemes and confidence may differ; what was not measured
    holds. Exit code 0: all would be promoted; 1: one would be blocked; 2: one would be held, or cannot be replayed.
    """
    from quantguard.gate.replay import replay
    from quantguard.policy.load import load_policy

    loaded = load_policy(policy)
    told: list[Replay | EvidenceError] = []
    for where in evidence:
        try:
            told.append(replay(where, loaded))
        except EvidenceError as error:
            told.append(error)
    if output == "json":
        models = [_plain(where, one) for where, one in zip(evidence, told, strict=True)]
        named = {"name": loaded.policy.name, "digest": loaded.digest}
        click.echo(json.dumps({"schema": _SCHEMA, "policy": named, "models": models}, indent=2))
    else:
        click.echo("\n".join(_lines(evidence, told)))
    return _code(told)


def _lines(evidence: tuple[Path, ...], told: list[Replay | EvidenceError]) -> Iterator[str]:
    from quantguard.report.text import visible

    width = max(len(str(where)) for where in evidence)
    for where, one in zip(evidence, told, strict=True):
        if isinstance(one, EvidenceError):
            yield f"{where!s:<{width}}  cannot be replayed: {visible(one.message, _LONGEST)} ({one.remedy})"
            continue
        then, now = one.then.verdict.value, one.now.verdict.value
        yield f"{where!s:<{width}}  {then} -> {now}{f' ({one.note})' if one.note else ''}"
        changed = one.changed()
        yield from (f"    {visible(reason.sentence(), _LONGEST)}" for reason in changed[:_SHOWN])
        if len(changed) > _SHOWN:
            yield f"    and {len(changed) - _SHOWN} more"
        yield from (f"    no longer: {rule} ({visible(at)})" for rule, at in one.gone()[:_SHOWN])
    done = [one for one in told if not isinstance(one, EvidenceError)]
    moved = sum(one.then.verdict is not one.now.verdict for one in done)
    yield f"{len(told)} asked, {len(done)} replayed, {moved} with another verdict"


def _plain(where: Path, one: Replay | EvidenceError) -> dict[str, Any]:
    if isinstance(one, EvidenceError):
        return {"evidence": str(where), "error": str(one)}
    reasons = [
        {"rule": r.rule, "where": r.where, "outcome": r.outcome.value, "measured": r.measured, "limit": r.limit}
        for r in one.changed()
    ]
    gone = [{"rule": rule, "where": at} for rule, at in one.gone()]
    verdicts = {"then": one.then.verdict.value, "now": one.now.verdict.value, "note": one.note}
    return {"evidence": str(where), **verdicts, "changed": reasons, "gone": gone}


def _code(told: list[Replay | EvidenceError]) -> ExitCode:
    verdicts = [Verdict.HOLD if isinstance(one, EvidenceError) else one.now.verdict for one in told]
    if Verdict.BLOCK in verdicts:
        return ExitCode.BLOCKED
    return ExitCode.INCONCLUSIVE if Verdict.HOLD in verdicts else ExitCode.PASSED
