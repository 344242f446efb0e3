"""The members of the range that are checked in, and the canary: who is flagged, on which grid."""

from __future__ import annotations

from functools import cache

import pytest

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.finding import Finding, Severity
from quantguard.core.scheme import Scheme
from quantguard.scan.scan import scan
from tests.range.slice import ROWS, model, of_kind

OUTLIERS = "variant-outliers"
CARRYING = tuple(name for name in (*of_kind("attacked"), *of_kind("variant")) if name != OUTLIERS)


@cache
def high(name: str) -> tuple[Finding, ...]:
    return tuple(f for f in scan(model(name), seed=0).findings if f.severity.at_least(Severity.HIGH))


@pytest.mark.parametrize("name", CARRYING)
def test_an_attacked_member_is_flagged_on_each_of_its_targets(name: str) -> None:
    assert {target.upper() for target in ROWS[name].targets} <= {finding.grid for finding in high(name)}


@pytest.mark.parametrize("name", of_kind("benign"))
def test_a_benign_member_is_not_flagged(name: str) -> None:
    assert high(name) == ()


def test_the_member_with_injected_outliers_is_flagged_for_them() -> None:
    assert {finding.rule for finding in high(OUTLIERS)} == {"scan.outlier"}


def test_a_member_attacked_in_one_layer_is_flagged_there_only() -> None:
    assert {finding.where.split(".")[2] for finding in high("variant-one-layer")} == {"1"}


@pytest.mark.parametrize("kind", [CanaryKind.CLEAN, CanaryKind.MALICIOUS])
def test_a_canary_that_nobody_prepared_is_clean(kind: CanaryKind) -> None:
    assert not [f for f in scan(canary_directory(kind), seed=0).findings if f.severity.at_least(Severity.LOW)]


def test_the_attacked_canary_is_flagged_in_most_of_its_weights() -> None:
    found = [f for f in scan(canary_directory(CanaryKind.NF4_ATTACKED), seed=0).findings if f.rule == "scan.boundary"]
    assert len({finding.where for finding in found}) >= 10
    assert {finding.scheme for finding in found} == {Scheme.NF4}
