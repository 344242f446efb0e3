"""`quantguard load`."""

from __future__ import annotations

from pathlib import Path

import click

from quantguard.cli.environment import stay_quiet, tracking_uri
from quantguard.cli.options import DIRECTORY, environment_option, examples
from quantguard.cli.presets import POLICY
from quantguard.cli.progress import printable, progress_shown
from quantguard.core.errors import UsageError
from quantguard.core.scheme import Scheme


@click.command(
    epilog=examples("""
quantguard load models:/assistant@champion /srv/model --policy policy.yaml --key gate.pub.pem
quantguard load models:/assistant/3 /srv/model --policy policy.yaml --key keys.yaml --environment production
""")
)
@click.argument("model")
@click.argument("directory", type=DIRECTORY)
@click.option("--policy", "policy_file", type=POLICY, required=True, help="What the model must meet, here and today.")
@click.option(
    "--key",
    "keys",
    type=DIRECTORY,
    required=True,
    metavar="PUB",
    help="Whose signatures count: a public key, a directory of them, or a keyring in YAML.",
)
@environment_option
@click.option(
    "--scheme",
    "schemes",
    type=click.Choice([scheme.value for scheme in Scheme]),
    multiple=True,
    help="In which the model will be served: refused where the policy does not measure it. May be given several times.",
)
@click.option("--tracking-uri", "given_uri", metavar="URI", help="MLflow server. Default: MLFLOW_TRACKING_URI.")
@click.option("--quiet", is_flag=True, help="Print nothing; errors and the exit code stay.")
def load(
    *,
    model: str,
    directory: Path,
    policy_file: Path,
    keys: Path,
    environment: str,
    schemes: tuple[str, ...],
    given_uri: str | None,
    quiet: bool,
) -> None:
    """Fetch a registered MODEL to DIRECTORY if its bytes are those that the gate signed for.

    MODEL is models:/NAME@ALIAS or models:/NAME/VERSION. The directory appears only once the signed evidence of that
    version was verified with your keys, decided again under your policy, and found to be about exactly the bytes that
    came. For the start of a server: after any other exit code than 0 there is nothing at DIRECTORY.

    Exit code 0: it is there; 1: refused; 2: could not tell; 4: usage, or invalid policy or key.
    """
    stay_quiet()
    from quantguard.attest.load import load_verified

    if (uri := tracking_uri(given_uri)) is None:
        raise UsageError(
            f"{model} is in a registry, but which one?", remedy="give --tracking-uri, or set MLFLOW_TRACKING_URI"
        )
    with progress_shown(quiet=quiet) as progress:
        loaded = load_verified(
            model,
            directory,
            keys=keys,
            policy=policy_file,
            tracking_uri=uri,
            environment=environment,
            schemes=[Scheme(scheme) for scheme in schemes],
            progress=progress,
        )
    if not quiet:
        told = loaded.passed.told
        fetched = "fetched" if loaded.downloaded else "was here before"
        click.echo(f"{printable(str(loaded.identity))} is at {directory} ({fetched})")
        click.echo(f"  bytes    {loaded.passed.model_digest}, as signed by {told['key']} at {told['decided_at']}")
        click.echo(f"  policy   {told['policy']}, met today")
        click.echo(f"  measured {told['measured_at']}, for {told['environment']}")
