"""The ledger of a gate: which file and anchors the machine has, and whether they are what the policy asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantguard.core.errors import UsageError
from quantguard.core.ledger import AnchorKind
from quantguard.evidence.ledger_anchors import Anchor, AnchorPlace, Ledger, open_file_or_git


def open_ledger(
    path: Path, places: tuple[AnchorPlace, ...], *, tracking_uri: str | None, environment: Mapping[str, str]
) -> Ledger:
    """The ledger at `path` with its anchors. `environment` is the caller's, of which git is passed little.

    Raises:
        UsageError: an anchor in a registry, and no registry is named.
    """
    return Ledger(path, tuple(_opened(place, tracking_uri, environment) for place in places))


def _opened(place: AnchorPlace, tracking_uri: str | None, environment: Mapping[str, str]) -> Anchor:
    if place.kind is AnchorKind.MLFLOW and tracking_uri:
        from quantguard.registry.ledger_tag import MlflowAnchor

        return MlflowAnchor(tracking_uri)
    return open_file_or_git(place, environment)


def require_ledger(required: tuple[AnchorKind, ...] | None, path: Path | None, places: tuple[AnchorPlace, ...]) -> None:
    """What a policy asks of the machine: None for no ledger, otherwise one with anchors of these kinds.

    Raises:
        UsageError: the machine does not have it, or has anchors of nothing.
    """
    if path is None and places:
        raise UsageError("an anchor without a ledger", remedy="give --ledger FILE")
    if required is None:
        return
    if path is None:
        raise UsageError("the policy asks for a ledger", remedy="give --ledger FILE, or set QUANTGUARD_LEDGER")
    absent = [kind.value for kind in required if kind not in {place.kind for place in places}]
    if absent:
        told = " and ".join(absent)
        raise UsageError(
            f"the policy asks for a ledger that is anchored in {told}", remedy=f"give --ledger-anchor {absent[0]}:..."
        )
