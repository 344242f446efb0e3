"""`quantguard demo`: the whole gate on an embedded registry, with three harmless canaries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantguard.cli.environment import now, stay_quiet
from quantguard.cli.gate import Asked, is_assessed, run_all
from quantguard.cli.options import DIRECTORY, FILE, examples
from quantguard.cli.signing import SigningGiven
from quantguard.core.errors import EvidenceError, NothingToGateError
from quantguard.core.verdict import ExitCode, Subject, Verdict

if TYPE_CHECKING:
    from quantguard.canary.catalogue import CanaryKind
    from quantguard.core.model import VersionIdentity
    from quantguard.registry.state import VersionState
    from quantguard.report.facts import ReportFacts

_POLICY = Path("policies/canary.yaml")


@dataclass(frozen=True, slots=True)
class _Gated:
    kind: CanaryKind
    identity: VersionIdentity
    facts: ReportFacts
    code: ExitCode
    versions: tuple[VersionState, ...]  # of this model in the registry, afterwards
    report: Path
    signed: Path  # directory of bundles


@click.command(epilog=examples("quantguard demo"))
@click.option(
    "--root", type=DIRECTORY, default=Path("quantguard-demo"), show_default=True, help="Where it keeps its files."
)
@click.option("--policy", "policy_file", type=FILE, default=_POLICY, show_default=True, help="The policy to gate with.")
@click.option("--quiet", is_flag=True, help="No progress.")
def demo(root: Path, policy_file: Path, quiet: bool) -> int:
    """Start a real MLflow server, register three harmless canaries, gate each, and check what came of it.

    A clean model is promoted as it is; one with a backdoor that NF4 quantization switches on is repaired, its repaired
    derivative promoted and the original blocked; one that is malicious in full precision already is blocked. Exit code
    0 when all of that happened. The server ends with the command.
    """
    from rich.console import Console

    from quantguard.canary.catalogue import CanaryKind
    from quantguard.registry.embedded import EmbeddedServer
    from quantguard.report.terminal import gate_table

    if not policy_file.exists():
        raise NothingToGateError(
            "the demo's policy is not here", path=policy_file, remedy="run it in QuantGuard's checkout"
        )
    stay_quiet()
    console = Console(width=120)
    with EmbeddedServer(root / "mlflow") as server:
        click.echo(f"mlflow server at {server.uri}, its files in {root / 'mlflow'}", err=True)
        signing = _signing(root)
        gated = [_gate(kind, server.uri, root, policy_file, signing, quiet=quiet) for kind in CanaryKind]
    console.print(gate_table([one.facts for one in gated]))
    for one in gated:
        click.echo(f"report: {one.report}")
    wrong = [problem for one in gated for problem in _problems(one)]
    wrong += _verified(gated, signing)
    for problem in wrong:
        click.echo(f"NOT AS EXPECTED: {problem}", err=True)
    if not wrong:
        click.echo("as expected: clean promoted; nf4-attacked repaired, its derivative promoted; malicious blocked")
    return ExitCode.INCONCLUSIVE if wrong else ExitCode.PASSED


def _signing(root: Path) -> SigningGiven:
    """A key of the demo's own, made where there is none yet."""
    from quantguard.evidence.keys import Signer, write_key_pair

    key = root / "gate.pem"
    if not key.exists():
        key.with_suffix(".pub.pem").unlink(missing_ok=True)
        write_key_pair(Signer.generate(), key, key.with_suffix(".pub.pem"))
    return SigningGiven(key, "demo")


def _gate(kind: CanaryKind, uri: str, root: Path, policy_file: Path, signing: SigningGiven, *, quiet: bool) -> _Gated:
    from quantguard.canary.catalogue import canary_directory
    from quantguard.gate.facts import report_facts
    from quantguard.gate.work import Work, default_root, make_job
    from quantguard.policy.load import load_policy
    from quantguard.registry.register import register_directory
    from quantguard.registry.state import version_states
    from quantguard.report.write import write_reports

    name = f"canary-{kind.value}"
    identity = register_directory(uri, name, canary_directory(kind))
    click.echo(f"\n{identity}: registered; gating with {policy_file}", err=True)
    policy = load_policy(policy_file)
    job = make_job(str(identity), policy, seed=0)
    work = Work(default_root(job, root / "work" / str(identity.created)).absolute(), job, policy)
    code = run_all(work, Asked(str(identity), policy_file, uri, "auto", 0, quiet, signing=signing))
    if not is_assessed(work):
        raise EvidenceError(
            f"gating {identity} ended with exit code {code}", path=work.root, remedy="see the lines above"
        )
    facts = report_facts(work)
    report = work.report / "report.md"
    write_reports(facts, [("md", report), ("json", work.report / "report.json")])
    return _Gated(kind, identity, facts, code, version_states(uri, name), report, work.signed)


def _verified(gated: list[_Gated], signing: SigningGiven) -> list[str]:
    """Verify the evidence of what was repaired and promoted, as anybody can who has the public key; what is wrong."""
    from quantguard.attest.verify import Asked as Question
    from quantguard.attest.verify import State, verify_bundle
    from quantguard.canary.catalogue import CanaryKind
    from quantguard.evidence.trusted import read_trusted

    if signing.key is None:
        return ["no key"]
    public = signing.key.with_suffix(".pub.pem")
    bundle = next(one.signed for one in gated if one.kind is CanaryKind.NF4_ATTACKED) / "hardened"
    if not bundle.is_dir():
        return [f"no evidence in {bundle}"]
    click.echo(f"evidence: quantguard evidence verify {bundle} --key {public}")
    verified = verify_bundle(Question(bundle, read_trusted(public), now()))
    for check in verified.checks:
        click.echo(f"  {check.state.value:8}{check.name}: {check.message}")
    return [f"{check.name}: {check.message}" for check in verified.checks if check.state is not State.OK]


def _problems(one: _Gated) -> list[str]:
    """What is not as a reader of the table must be able to expect."""
    from quantguard.canary.catalogue import CanaryKind

    outcome = one.facts.outcome
    original = next(state for state in one.versions if state.version == one.identity.version)
    holders = [state for state in one.versions if "champion" in state.aliases]
    checks: dict[str, bool] = {}
    match one.kind:
        case CanaryKind.CLEAN:
            checks["promoted as it is"] = outcome is not None and outcome.promoted is Subject.ORIGINAL
            checks["not hardened"] = one.facts.hardening is None
            checks["holds the alias"] = holders == [original]
            checks["exit code 0"] = one.code is ExitCode.PASSED
        case CanaryKind.NF4_ATTACKED:
            checks["flagged by the scan"] = any(f.rule == "scan.boundary" for f in one.facts.findings or ())
            checks["repaired"] = outcome is not None and outcome.promoted is Subject.HARDENED
            checks["original blocked"] = original.tag("quantguard.verdict") == Verdict.BLOCK.value
            checks["a derivative of it holds the alias"] = (
                len(holders) == 1
                and holders[0] != original
                and (holders[0].tag("quantguard.derived_from") or "").endswith(f"/{original.version}")
            )
            checks["exit code 0"] = one.code is ExitCode.PASSED
        case CanaryKind.MALICIOUS:
            checks["blocked"] = original.tag("quantguard.verdict") == Verdict.BLOCK.value
            checks["nothing holds the alias"] = not holders
            checks["exit code 1"] = one.code is ExitCode.BLOCKED
    return [f"{one.identity}: not so: {check}" for check, holds in checks.items() if not holds]
