"""Measurements that await errands, settled with what came back. Nothing is measured again."""

from __future__ import annotations

from dataclasses import replace

from quantguard.core.errand import Answers
from quantguard.core.measurement import Measurements
from quantguard.verify.code_tasks import settle_executed
from quantguard.verify.judged import settle_judged


def settle(
    measurements: Measurements, answers: Answers, *, reference: Measurements | None, confidence: float
) -> Measurements:
    """`measurements` with every figure that awaits one of `answers` replaced by what that shows. Pure.

    `reference` is what the drops of benchmarks are against, as for `measure`; None: these measurements' full precision.
    A figure whose errand is not among them stays as it is; one whose errand failed is Unmeasured and awaits it still.
    """
    attacks = tuple(settle_judged(attack, answers) for attack in measurements.attacks)
    judged = replace(measurements, attacks=attacks)
    return settle_executed(judged, answers, reference=reference, confidence=confidence)
