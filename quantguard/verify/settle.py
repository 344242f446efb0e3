"""Measurements that await errands, settled with what came back. Nothing is measured again."""

from __future__ import annotations

from dataclasses import replace

from quantguard.core.errand import Answers
from quantguard.core.measurement import Measurements
from quantguard.verify.judged import settle_judged


def settle(measurements: Measurements, answers: Answers) -> Measurements:
    """`measurements` with every figure that awaits one of `answers` replaced by what that shows. Pure.

    A figure whose errand is not among them stays as it is; one whose errand failed is Unmeasured and awaits it still.
    """
    attacks = tuple(settle_judged(attack, answers) for attack in measurements.attacks)
    return replace(measurements, attacks=attacks)
