"""`quantguard keyless`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from quantguard.cli.environment import sigstore_token
from quantguard.cli.options import FILE, examples
from quantguard.cli.progress import printable
from quantguard.core.errors import EvidenceError, ForgedEvidenceError, UsageError

_MOST: Final = 32 * 1024 * 1024  # bytes of an envelope or a bundle
_trust = click.option(
    "--trust-config",
    "trust",
    type=FILE,
    help="Of a private instance of Sigstore (ClientTrustConfig, JSON). Default: the public one, over the network.",
)


@click.group(
    epilog=examples("""
quantguard keyless sign decision.dsse.json --output decision.sigstore.json
""")
)
def keyless() -> None:
    """Sign evidence by an identity instead of a key, with Sigstore.

    Needs quantguard[sigstore]. A second signature over a statement that the gate's key signed: nothing is admitted by
    it alone.
    """


@keyless.command(
    epilog=examples("""
quantguard keyless sign decision.dsse.json --output decision.sigstore.json
quantguard keyless sign decision.dsse.json --output decision.sigstore.json --trust-config trust.json
""")
)
@click.argument("envelope", type=FILE)
@click.option("--output", type=FILE, required=True, help="Where the bundle goes.")
@_trust
def sign(*, envelope: Path, output: Path, trust: Path | None) -> None:
    """Sign the statement in a DSSE ENVELOPE.

    The identity is that of SIGSTORE_ID_TOKEN, or of the workflow: in GitHub Actions a job with `id-token: write`. On
    the public instance its digest and the identity become public for ever.
    """
    from quantguard.attest.keyless import ambient_token, sign_keyless
    from quantguard.evidence.dsse import read_envelope
    from quantguard.evidence.records import write_atomically

    payload = read_envelope(_read(envelope)).payload
    if (token := sigstore_token() or ambient_token()) is None:
        remedy = "set SIGSTORE_ID_TOKEN, or run in a job with the permission id-token: write"
        raise UsageError("nobody is known here to sign as", remedy=remedy)
    write_atomically(output, sign_keyless(payload, token, trust=trust))
    click.echo(f"signed {envelope} as {output}")


@keyless.command(
    epilog=examples("""
quantguard keyless verify decision.sigstore.json --envelope decision.dsse.json \\
  --identity https://github.com/acme/models/.github/workflows/gate.yml@refs/heads/main \\
  --issuer https://token.actions.githubusercontent.com
""")
)
@click.argument("bundle", type=FILE)
@click.option("--identity", required=True, metavar="URI", help="Who must have signed.")
@click.option("--issuer", required=True, metavar="URL", help="Who must have vouched for that identity.")
@click.option("--envelope", type=FILE, help="The envelope whose statement it must be.")
@_trust
def verify(*, bundle: Path, identity: str, issuer: str, envelope: Path | None, trust: Path | None) -> None:
    """Verify a BUNDLE that `quantguard keyless sign` made.

    Exit code 0: that identity signed it; 1: it did not, or another statement; 2: could not tell.
    """
    from quantguard.attest.keyless import Identity, verify_keyless
    from quantguard.evidence.dsse import read_envelope

    payload = verify_keyless(_read(bundle), Identity(identity, issuer), trust=trust)
    if envelope is not None and read_envelope(_read(envelope)).payload != payload:
        remedy = "sign this envelope, or name the one that was signed"
        raise ForgedEvidenceError(f"{bundle} is over another statement", path=envelope, remedy=remedy)
    click.echo(f"{bundle}: signed by {printable(identity)}, as {printable(issuer)} says")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST + 1)  # whoever reads it refuses what is longer
    except OSError as error:
        remedy = "name a file of the evidence"
        raise EvidenceError(f"cannot be read: {error.strerror or error}", path=path, remedy=remedy) from error
