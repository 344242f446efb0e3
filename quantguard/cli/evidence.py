"""`quantguard evidence`: what was signed, checked and shown. Needs neither registry nor torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never

import click

from quantguard.cli.environment import now
from quantguard.cli.options import DIRECTORY, examples
from quantguard.cli.presets import POLICY
from quantguard.cli.progress import printable
from quantguard.core.verdict import ExitCode, Verdict

if TYPE_CHECKING:
    from quantguard.attest.opened import Opened
    from quantguard.attest.verify import Verified

_FORMATS: Final = ("text", "json")


@click.group(epilog=examples("quantguard evidence verify bundle/ --key gate.pub.pem --model ./model"))
def evidence() -> None:
    """Verify and show signed evidence, offline."""


@evidence.command(
    epilog=examples("""
quantguard evidence verify work/signed/hardened --key gate.pub.pem
quantguard evidence verify bundle/ --key keys.yaml --model ./model --policy policies/strict.yaml
""")
)
@click.argument("bundle", type=DIRECTORY)
@click.option("--key", "keys", required=True, type=click.Path(path_type=Path), help="Public key, directory or keyring.")
@click.option("--model", type=DIRECTORY, help="A directory: are its bytes those that were measured?")
@click.option("--policy", "policy_file", type=POLICY, help="A policy of yours: is it met too, today?")
@click.option("--any-verdict", is_flag=True, help="Exit 0 for genuine evidence of a refusal too.")
@click.option("--output", "form", type=click.Choice(_FORMATS), default="text", show_default=True)
def verify(
    *, bundle: Path, keys: Path, model: Path | None, policy_file: Path | None, any_verdict: bool, form: str
) -> int:
    """Check that BUNDLE is what the gate signed, whole, and that its verdict follows from its measurements.

    Exit code 0: everything holds, and the verdict is PROMOTE; 1: something does not, or the model was blocked; 2: could
    not tell, or held; 4: a key or policy that is none.
    """
    from quantguard.attest.verify import Asked, State, verify_bundle
    from quantguard.evidence.trusted import read_trusted
    from quantguard.policy.load import load_policy

    trusted = read_trusted(keys)
    policy = None if policy_file is None else load_policy(policy_file)
    verified = verify_bundle(Asked(bundle, trusted, now(), model, policy))
    code = _code(verified, any_verdict=any_verdict)
    if form == "json":
        click.echo(json.dumps({**_said(verified), "exit_code": int(code)}, indent=2))
        return code
    for check in verified.checks:
        colour = {State.OK: "green", State.FAILED: "red", State.UNKNOWN: "yellow"}[check.state]
        click.echo(click.style(f"{check.state.value:14}", fg=colour) + f"{check.name}: {printable(check.message)}")
    if model is None:
        click.echo(f"{'not asked':14}bytes: give --model DIRECTORY to compare them")
    if verified.opened is not None:
        trusted_as = "" if verified.state is State.OK else f", which is not verified ({verified.state.value})"
        click.echo(_title(verified.opened) + trusted_as)
    return code


@evidence.command(epilog=examples("quantguard evidence show work/signed/original --key gate.pub.pem"))
@click.argument("bundle", type=DIRECTORY)
@click.option("--key", "keys", required=True, type=click.Path(path_type=Path), help="Public key, directory or keyring.")
@click.option("--output", "form", type=click.Choice(_FORMATS), default="text", show_default=True)
def show(*, bundle: Path, keys: Path, form: str) -> int:
    """What BUNDLE says, once its signatures were verified."""
    from quantguard.attest.bundle import read_pair
    from quantguard.attest.opened import open_evidence
    from quantguard.evidence.trusted import read_trusted

    opened = open_evidence(read_pair(bundle), read_trusted(keys))
    if form == "json":
        click.echo(json.dumps(_details(opened), indent=2))
        return ExitCode.PASSED
    decided, measured = opened.decided, opened.measured
    click.echo(_title(opened))
    click.echo(f"bytes:     {decided.binding.model_digest} ({decided.subject.value})")
    click.echo(f"measured:  {measured.measured_at} by QuantGuard {measured.tool}")
    click.echo(f"decided:   {decided.decided_at} by the policy {decided.policy_name} {decided.policy_digest}")
    click.echo(f"signed by: {', '.join(f'{key.name} {key.public.key_id}' for key in opened.signers)}")
    for reason in decided.reasons:
        click.echo(f"  {reason.outcome.value}: {printable(reason.sentence())}")
    for waiver in decided.waivers:
        told = f"{waiver.rule} ({waiver.scheme}) until {waiver.expires}, approved by {waiver.approver}"
        click.echo(f"  waiver: {printable(told)}")
    for name, digest in decided.files:
        click.echo(f"  {digest}  {printable(name)}")
    return ExitCode.PASSED


def _code(verified: Verified, *, any_verdict: bool) -> ExitCode:
    from quantguard.attest.verify import State

    if verified.state is State.FAILED or verified.opened is None:
        return ExitCode.BLOCKED
    if verified.state is State.UNKNOWN:
        return ExitCode.INCONCLUSIVE
    match verified.opened.decided.verdict:
        case Verdict.PROMOTE:
            return ExitCode.PASSED
        case Verdict.BLOCK:
            return ExitCode.PASSED if any_verdict else ExitCode.BLOCKED
        case Verdict.HOLD:
            return ExitCode.PASSED if any_verdict else ExitCode.INCONCLUSIVE
        case _:
            assert_never(verified.opened.decided.verdict)


def _title(opened: Opened) -> str:
    decided = opened.decided
    return printable(f"{decided.binding.identity} for {decided.binding.environment}: {decided.verdict.value}")


def _said(verified: Verified) -> dict[str, Any]:
    checks = [{"check": c.name, "state": c.state.value, "message": c.message} for c in verified.checks]
    about = None if verified.opened is None else _details(verified.opened)
    return {"schema": "quantguard.evidence-verification/1", "state": verified.state.value, "checks": checks,
            "evidence": about}  # fmt: skip


def _details(opened: Opened) -> dict[str, Any]:
    from quantguard.attest.statements import Decided
    from quantguard.evidence.records import to_plain

    keys = [{"name": key.name, "id": key.public.key_id} for key in opened.signers]
    return {**to_plain(Decided, opened.decided), "measured_at": opened.measured.measured_at, "signed_by": keys}
