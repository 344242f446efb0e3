"""`quantguard`: argv -> call -> print -> exit code. The only room that prints and exits."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import NoReturn

import click

from quantguard import __version__
from quantguard.cli.canary import canary
from quantguard.cli.check import check
from quantguard.cli.demo import demo
from quantguard.cli.errands import errand
from quantguard.cli.evidence import evidence
from quantguard.cli.gate import gate
from quantguard.cli.harden import harden
from quantguard.cli.keyless import keyless
from quantguard.cli.keys import keys
from quantguard.cli.ledger import ledger
from quantguard.cli.load import load
from quantguard.cli.policy import policy
from quantguard.cli.progress import printable
from quantguard.cli.scan import scan
from quantguard.cli.verify import verify
from quantguard.cli.waivers import waivers
from quantguard.core.errors import QuantGuardError
from quantguard.core.verdict import ExitCode

_INTERRUPTED = 130  # the shell's convention for SIGINT

EXIT_CODES = """\b
Exit codes:
  0  promoted, or passed
  1  blocked, or findings
  2  could not tell, or broken
  3  nothing to gate
  4  usage, or invalid policy
"""


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="quantguard")
def cli() -> None:
    """A gate against backdoors that quantization switches on.

    Scans a model's weights, hardens their rounding, measures the model as it will be deployed, quantized, and promotes
    or blocks its version in the registry.

    \b
    Example:
      quantguard gate models:/assistant/3 --policy policies/standard.yaml
    """


for command in (
    gate,
    scan,
    harden,
    verify,
    check,
    load,
    policy,
    waivers,
    canary,
    keys,
    keyless,
    evidence,
    ledger,
    demo,
    errand,
):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line; every failure ends in one line on standard error and its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)  # so that stages and servers that were started end then too
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted; run the same command again to go on\n")
        sys.exit(_INTERRUPTED)
    except QuantGuardError as error:
        sys.stderr.write(f"quantguard: {printable(str(error))}\n")
        sys.exit(error.exit_code)
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001  a defect of ours must not look like a verdict: exit 2, never 1
        traceback.print_exc()
        sys.stderr.write("quantguard: internal error; nothing was promoted\n")
        sys.exit(ExitCode.INCONCLUSIVE)
    sys.exit(code if isinstance(code, int) else ExitCode.PASSED)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
