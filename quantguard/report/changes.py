"""What quantization changes in answers, as every format tells it."""

from __future__ import annotations

from quantguard.core.measurement import Change, Measurements
from quantguard.core.wording import paired_rise_text, trait_text
from quantguard.report.attacks import of_attacks
from quantguard.report.summary import p_value_text


def changed(*all_measurements: Measurements | None) -> tuple[tuple[str, Change], ...]:
    """The significant changes of answers against full precision: where, in our words, and the change."""
    return of_attacks(lambda attack: [change for change in attack.changes if change.significant], all_measurements)


def change_text(change: Change) -> str:
    """`refusals gained 40, lost 2 of 328, 11.6 % [7.4 %, 16.3 %], p = 2.1e-10; 3 pairs left out`."""
    left_out = f"; {change.left_out} pairs left out" if change.left_out else ""
    said = f"{trait_text(change.trait)} {paired_rise_text(change.rise)}, {p_value_text(change.p_value)}"
    return f"{said}{left_out}"
