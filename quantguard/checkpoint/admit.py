"""The door of this room: a directory comes in as a checked `Checkpoint` or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from quantguard.checkpoint.files import quote
from quantguard.checkpoint.layout import Checkpoint, open_checkpoint
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import UnsafeCheckpointError
from quantguard.core.finding import Severity

REFUSED_FROM: Final = Severity.HIGH
_SHOWN: Final = 10


def admit(directory: Path) -> Checkpoint:
    """Refuse what must never be loaded, then check layout and headers. Milder findings are left to `unsafe_files`.

    Raises:
        UnsafeCheckpointError: findings of HIGH or more; up to ten are named, with the attacker's text escaped.
        UsageError, NothingToGateError, CheckpointError: as `open_checkpoint`.
    """
    refused = [finding for finding in unsafe_files(directory) if finding.severity.at_least(REFUSED_FROM)]
    if refused:
        shown = "; ".join(f"[{finding.rule}] {quote(finding.where)} {finding.message}" for finding in refused[:_SHOWN])
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise UnsafeCheckpointError(
            f"holds what must never be loaded: {shown}{more}",
            path=directory,
            remedy="remove these and register a new version",
        )
    return open_checkpoint(directory)
