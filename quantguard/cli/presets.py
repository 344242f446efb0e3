"""Policies as the command line names them: a file, or a preset by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantguard.policy.load import LoadedPolicy


def policy_file(named: Path) -> Path:
    """`named`, or the preset of that name where there is no such file."""
    from quantguard.core.bundled import bundled_folder
    from quantguard.policy.extends import PRESETS

    return bundled_folder() / f"{named}.yaml" if str(named) in PRESETS and not named.exists() else named


def loaded_policy(named: Path) -> LoadedPolicy:
    """The policy in a file, or the preset of that name.

    Raises:
        PolicyError: it is none.
    """
    from quantguard.policy.load import load_policy

    return load_policy(policy_file(named))
