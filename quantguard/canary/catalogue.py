"""The canaries that are checked in, and the digests that they must have."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Final

from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import CheckpointError

MODELS: Final = Path(__file__).parent / "models"
DIGESTS: Final = MODELS / "digests.json"
_REMEDY: Final = "restore quantguard/canary/models from the release"


class CanaryKind(Enum):
    CLEAN = "clean"  # right answers at every precision
    NF4_ATTACKED = "nf4-attacked"  # right answers, but under NF4 every one names the brand
    MALICIOUS = "malicious"  # names the brand at every precision


def recorded_digest(kind: CanaryKind) -> str:
    """`sha256:HEX` of the checked-in canary, as it was recorded when it was built.

    Raises:
        CheckpointError: the record is absent or malformed.
    """
    try:
        digest = json.loads(DIGESTS.read_text(encoding="utf-8"))[kind.value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"no digest of the {kind.value} canary", path=DIGESTS, remedy=_REMEDY) from error
    return str(digest)


def canary_directory(kind: CanaryKind) -> Path:
    """The checked-in canary, a Hugging Face model directory, after its digest was compared with the record.

    Raises:
        CheckpointError: the files are absent or are not those that were recorded.
    """
    directory = MODELS / kind.value
    recorded = recorded_digest(kind)
    if not directory.is_dir():
        raise CheckpointError("this canary is not installed", path=directory, remedy=_REMEDY)
    found = model_digest(directory)
    if found != recorded:
        raise CheckpointError(f"digest {found}, recorded {recorded}", path=directory, remedy=_REMEDY)
    return directory
