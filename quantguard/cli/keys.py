"""`quantguard keys`: the key that signs evidence, and what others know it by."""

from __future__ import annotations

from pathlib import Path

import click

from quantguard.cli.options import FILE, examples
from quantguard.core.verdict import ExitCode


@click.group(epilog=examples("quantguard keys generate gate.pem\nquantguard keys show gate.pub.pem"))
def keys() -> None:
    """Make and show the keys that evidence is signed with."""


@keys.command(epilog=examples("quantguard keys generate /etc/quantguard/gate.pem"))
@click.argument("private", type=FILE)
def generate(*, private: Path) -> int:
    """Make a key: PRIVATE, which only you can read, and beside it the public half, NAME.pub.pem.

    ECDSA on P-256, as OpenSSF model signing takes it too. Nothing is overwritten. Give PRIVATE to the gate alone, and
    the public half to whoever verifies.
    """
    from quantguard.evidence.keys import Signer, write_key_pair

    signer = Signer.generate()
    public = private.with_suffix(".pub.pem")
    write_key_pair(signer, private, public)
    click.echo(f"private key: {private} (keep it; the gate signs with --key {private})")
    click.echo(f"public key:  {public} (give it to whoever verifies)")
    click.echo(f"identifier:  {signer.public.key_id}")
    return ExitCode.PASSED


@keys.command(epilog=examples("quantguard keys show gate.pub.pem\nquantguard keys show keys.yaml"))
@click.argument("path", metavar="KEYS", type=click.Path(path_type=Path))
def show(*, path: Path) -> int:
    """The keys in KEYS: a public key, a directory of them, or a keyring in YAML.

    Tells their names, identifiers, and when and for which environments they are trusted.
    """
    from quantguard.evidence.trusted import read_trusted

    for key in read_trusted(path).keys:
        starts = key.not_before.date().isoformat() if key.not_before is not None else "always"
        ends = f"before {key.not_after.date().isoformat()}" if key.not_after is not None else "for ever"
        places = ", ".join(key.environments) if key.environments is not None else "every environment"
        click.echo(f"{key.name}  {key.public.key_id}  from {starts}, {ends}, for {places}")
    return ExitCode.PASSED
