"""Words of the ledger that a policy uses too."""

from __future__ import annotations

from enum import Enum


class AnchorKind(Enum):
    """Where the head of a ledger is kept besides. A policy names kinds; which file or repository is the machine's."""

    FILE = "file"
    GIT = "git"
    MLFLOW = "mlflow"
