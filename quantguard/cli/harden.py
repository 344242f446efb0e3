"""`quantguard harden`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from quantguard.checkpoint.files import quote
from quantguard.cli.environment import enter_sealed_room
from quantguard.cli.options import DIRECTORY, common, examples
from quantguard.cli.progress import progress_shown
from quantguard.core.hardening import HardeningSummary
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import ExitCode

if TYPE_CHECKING:
    from quantguard.harden.harden import HardenRequest

_SHOWN: Final = 3  # names of a list
_UNITS: Final = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def _schemes(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[Scheme, ...]:
    known = {scheme.value: scheme for scheme in Scheme}
    names = [name.strip() for name in text.split(",")]
    if wrong := [name for name in names if name not in known]:
        raise click.BadParameter(f"{', '.join(map(repr, wrong))}: choose from {', '.join(known)}")
    if len(set(names)) != len(names):
        raise click.BadParameter("each scheme once")
    return tuple(dict.fromkeys(known[name].codes for name in names))


def _memory(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?) ?([A-Za-z]{0,3})", text.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise click.BadParameter(f"{text!r} is no size: write 20GiB, 800MB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _listed(names: tuple[str, ...]) -> str:
    """`5 (a, b, c, …)`"""
    return f"{len(names)} ({', '.join(quote(name) for name in names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"


def _tell(out: Path, summary: HardeningSummary) -> None:
    flips = ", ".join(f"{scheme.value} {share:.1%}" for scheme, share in summary.flipped_share)
    click.echo(f"{out}: roundings changed: {flips}; every level confirmed by bitsandbytes; {summary.seconds:.0f} s")
    if (used := summary.calibration) is not None:
        click.echo(f"calibrated on {used.count} prompts: {quote(used.source)}, {used.digest}")
    if left := summary.untouched:
        click.echo(f"matrices left as stored, since bitsandbytes does not quantize them: {_listed(left)}")
    if same := summary.unchanged:
        click.echo(
            f"layers in which no rounding was changed, since no text reached them or none had to be: {_listed(same)}"
        )
    if drowned := summary.outliers:
        click.echo(
            "injected outliers, which are no rounding attack and which no hardening repairs: one weight in each group"
            f" drowns the others in {_listed(drowned)}; do not deploy this model quantized"
        )
    click.echo(f"next: quantguard verify {out} --policy POLICY.yaml")


@click.command(
    epilog=examples("""
quantguard harden ./model --scheme nf4 --out ./hardened
quantguard harden ./model --scheme nf4,fp4,int8 --calibration prompts.jsonl --out ./hardened --steps 250
quantguard harden ./model --scheme nf4 --calibration self --samples 256 --out ./hardened
quantguard harden ./model --scheme nf4 --method flipguard --out ./hardened
quantguard harden ./large --scheme nf4,fp4,int8 --device cuda --max-memory 20GiB --out ./hardened
""")
)
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--scheme",
    "schemes",
    required=True,
    callback=_schemes,
    help="nf4, fp4, int8, or several with commas.",
)
@click.option(
    "--calibration",
    metavar="neutral|self|FILE",
    default="neutral",
    show_default=True,
    help='The built-in prompts, prompts sampled from the model itself, or a JSONL: {"prompt": "..."} a line.',
)
@click.option(
    "--samples",
    type=click.IntRange(1, 100_000),
    help="Use the first so many of them; without it all, or 512 of the model itself.",
)
@click.option("--out", required=True, type=DIRECTORY, help="Directory to make; must not exist.")
@click.option("--method", default="auto", show_default=True, help="One of those above.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=125,
    show_default=True,
    help="Optimizer steps a scheme; quantguard only.",
)
@click.option(
    "--max-memory",
    metavar="SIZE",
    callback=_memory,
    help="Of the device, as 20GiB; without it all that is free. A model that is larger is streamed through it.",
)
@common
def harden(
    *,
    directory: Path,
    schemes: tuple[Scheme, ...],
    calibration: str,
    samples: int | None,
    out: Path,
    method: str,
    steps: int,
    max_memory: int | None,
    outputs: tuple[str, ...],
    device: str,
    seed: int,
    quiet: bool,
) -> int:
    """Write a copy of DIRECTORY whose stock quantization no longer has the attacker's rounding.

    Same dtype and file layout. At the end the copy is quantized with the real library, and every weight is compared
    with the level that was chosen for it.

    \b
    Methods:
      auto           reverses few roundings, those that change most what each layer says, for all schemes at once
      quantguard     optimises the roundings on the model's own answers to the calibration prompts
      noise          adds noise of half a cell to every weight; no calibration
      flipguard      reverses the largest rounding errors: 10 % of a 4-bit block, 20 % of an INT8 row; no calibration
      flipguard-low  the same, 6 % of a 4-bit block, 10 % of an INT8 row
    """
    enter_sealed_room()
    from quantguard.core.calibration import read_calibration
    from quantguard.harden.harden import HardenRequest
    from quantguard.models.device import resolve_device

    chosen, device = read_calibration(calibration, samples), resolve_device(device)
    asked = HardenRequest(schemes, chosen, method=method, steps=steps, seed=seed, device=device, max_memory=max_memory)
    summary = _hardened(directory, out, asked, outputs, quiet=quiet)
    if not quiet:
        _tell(out, summary)
    return ExitCode.PASSED


def _hardened(
    directory: Path, out: Path, request: HardenRequest, outputs: tuple[str, ...], *, quiet: bool
) -> HardeningSummary:
    from quantguard.checkpoint.admit import admit
    from quantguard.checkpoint.digest import model_digest
    from quantguard.harden.harden import harden as harden_directory
    from quantguard.report.facts import ReportFacts
    from quantguard.report.write import parse_output, write_reports

    files = [parse_output(output) for output in outputs]
    admit(directory)
    with progress_shown(quiet=quiet) as progress:
        summary = harden_directory(directory, out, request, progress=progress)
    write_reports(ReportFacts(str(directory), model_digest=model_digest(directory), hardening=summary), files)
    return summary
