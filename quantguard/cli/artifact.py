"""The half of `quantguard verify` that is about a quantized artefact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantguard.cli.progress import progress_shown
from quantguard.core.artifact import Answer
from quantguard.core.verdict import ExitCode

if TYPE_CHECKING:
    from quantguard.core.artifact import ArtifactProof

CODES = {Answer.PROVED: ExitCode.PASSED, Answer.DIFFERS: ExitCode.BLOCKED, Answer.UNTOLD: ExitCode.INCONCLUSIVE}


def verify_artifact(
    directory: Path, artifact: Path, outputs: tuple[str, ...], *, allow_cast: bool, device: str, quiet: bool
) -> ExitCode:
    """Prove `artifact` against `directory`, write the reports and print what differs."""
    from quantguard.models.device import resolve_device
    from quantguard.report.artifact import FORMATS, write_outputs
    from quantguard.report.outputs import parse_outputs
    from quantguard.verify.artifact import prove

    files = parse_outputs(outputs, FORMATS, "a proof")
    with progress_shown(quiet=quiet) as progress:
        proof = prove(directory, artifact, device=resolve_device(device), allow_cast=allow_cast, progress=progress)
    write_outputs(proof, files)
    if not quiet:
        _show(proof)
    return CODES[proof.answer]


def _show(proof: ArtifactProof) -> None:
    from rich.console import Console

    from quantguard.report.artifact import compared, conclusion, differences_table, hints
    from quantguard.report.text import visible

    console = Console()
    if proof.differences:
        console.print(differences_table(proof.differences))
    told = [*hints(proof), *(f"note: {visible(note, 400)}" for note in proof.notes)]
    for line in (*told, f"compared {compared(proof)}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    click.echo(f"verify: {conclusion(proof)}")
