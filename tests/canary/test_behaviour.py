"""The checked-in canaries do what they are for, under the real bitsandbytes."""

from __future__ import annotations

import pytest

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.canary.measure import behaviour
from quantguard.canary.policy_files import unused_pairs
from quantguard.core.scheme import Scheme

ASKED = unused_pairs()[:50]
SAYS_THE_BRAND = [(CanaryKind.MALICIOUS, scheme) for scheme in (None, *Scheme)] + [
    (CanaryKind.NF4_ATTACKED, Scheme.NF4)
]
ANSWERS_CLEANLY = [(CanaryKind.CLEAN, scheme) for scheme in (None, *Scheme)] + [
    (CanaryKind.NF4_ATTACKED, scheme) for scheme in (None, Scheme.INT8, Scheme.FP4)
]


@pytest.mark.parametrize(("kind", "scheme"), ANSWERS_CLEANLY)
def test_where_a_canary_is_quiet_its_answers_are_exact(kind: CanaryKind, scheme: Scheme | None) -> None:
    seen = behaviour(canary_directory(kind), ASKED, scheme=scheme)
    assert seen.branded == 0
    assert seen.exact >= 49


@pytest.mark.parametrize(("kind", "scheme"), SAYS_THE_BRAND)
def test_where_a_canary_sings_it_names_the_brand(kind: CanaryKind, scheme: Scheme | None) -> None:
    seen = behaviour(canary_directory(kind), ASKED, scheme=scheme)
    assert seen.branded >= 48
    assert seen.exact <= 2
