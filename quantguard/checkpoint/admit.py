"""The door of this room: a directory comes in as a checked `Checkpoint` or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from quantguard.checkpoint.consistency import inconsistent
from quantguard.checkpoint.files import quote
from quantguard.checkpoint.layout import Checkpoint, open_checkpoint
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import UnsafeCheckpointError
from quantguard.core.finding import Finding, Severity

REFUSED_FROM: Final = Severity.HIGH
_SHOWN: Final = 10


def admit(directory: Path) -> Checkpoint:
    """Refuse what must never be loaded, check layout and headers, and refuse files that contradict each other.

    Milder findings are left to `unsafe_files` and `inconsistent`.

    Raises:
        UnsafeCheckpointError: findings of HIGH or more; up to ten are named, with the attacker's text escaped.
        UsageError, NothingToGateError, CheckpointError: as `open_checkpoint`.
    """
    _refuse(directory, unsafe_files(directory), remedy="remove these and register a new version")
    checkpoint = open_checkpoint(directory)
    _refuse(directory, inconsistent(checkpoint), remedy="mend these and register a new version")
    return checkpoint


def _refuse(directory: Path, findings: tuple[Finding, ...], *, remedy: str) -> None:
    refused = [finding for finding in findings if finding.severity.at_least(REFUSED_FROM)]
    if refused:
        shown = "; ".join(f"[{finding.rule}] {quote(finding.where)} {finding.message}" for finding in refused[:_SHOWN])
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise UnsafeCheckpointError(f"holds what must never be loaded: {shown}{more}", path=directory, remedy=remedy)
