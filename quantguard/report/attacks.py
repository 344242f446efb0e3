"""Where in the measurements of attacks something was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from quantguard.core.measurement import AttackSuccess, Measurements
from quantguard.core.scheme import scheme_label

T = TypeVar("T")


def of_attacks(
    of: Callable[[AttackSuccess], Iterable[T]], all_measurements: Iterable[Measurements | None]
) -> tuple[tuple[str, T], ...]:
    """What `of` finds in every scenario and scheme: where, in our words, and it."""
    return tuple(
        (f"{measurements.subject.value}, {attack.scenario.value}, {scheme_label(attack.scheme)}", found)
        for measurements in all_measurements
        if measurements is not None
        for attack in measurements.attacks
        for found in of(attack)
    )
