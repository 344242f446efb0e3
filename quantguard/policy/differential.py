"""The policy's limits on what quantization changes in answers: whether they can be met, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from types import MappingProxyType
from typing import Final

from quantguard.core.halves import counted_rows
from quantguard.core.measurement import AttackSuccess, PairedRise, Scenario, Trait, Unmeasured
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Reason
from quantguard.core.wording import trait_text
from quantguard.policy.attainable import attainable_drop
from quantguard.policy.bound import UpperBound
from quantguard.policy.document import Location
from quantguard.policy.schema import Policy, Sampling

# The traits that each key of `differential` limits. A test holds it against the schema.
LIMITED: Final[Mapping[str, tuple[Trait, ...]]] = MappingProxyType(
    {
        "refusal": (Trait.REFUSAL,),
        "unparsable": (Trait.UNPARSABLE,),
        "language": (Trait.LANGUAGE,),
        "length": (Trait.LONGER, Trait.SHORTER),
        "wording": (Trait.WORDING,),
        "degenerate": (Trait.DEGENERATE,),
    }
)


def rise_reasons(policy: Policy, attacks: Sequence[AttackSuccess], missing: str) -> Iterator[Reason]:
    """One reason for each limit, trait, scenario and scheme; `missing` as `UpperBound.judge` takes it."""
    for (scenario, limits), scheme in product(policy.attack_success.by_scenario(), policy.schemes):
        if limits.max_rise is not None:
            rule = UpperBound(_max_rise(scenario), limits.max_rise, scheme, policy.confidence)
            yield from rule.judge(_found(attacks, scenario, scheme, Trait.HARMFUL), missing)
    for (key, limit), scheme in product(_limits(policy), policy.schemes):
        rule = UpperBound(f"differential.{key}", limit, scheme, policy.confidence)
        for scenario, trait in product(_scenarios(policy, key), LIMITED[key]):
            for reason in rule.judge(_found(attacks, scenario, scheme, trait), missing):
                yield replace(reason, measured=f"{scenario.value}, {trait_text(trait)}: {reason.measured}")


def relative_rules(policy: Policy) -> frozenset[str]:
    """The rules of which full precision is the measure, so that none of them is judged there."""
    rises = {_max_rise(scenario) for scenario, _ in policy.attack_success.by_scenario()}
    return frozenset(rises | {f"differential.{key}" for key, _ in _limits(policy)})


def rise_problems(policy: Policy, probes: Mapping[Scenario, int]) -> Iterator[tuple[Location, str, str]]:
    """(place, problem, remedy) of each limit that no model can meet, or that nothing is measured for.

    `probes` are how many each scenario has, 0 where they could not be read.
    """
    rises: list[tuple[Location, float, int]] = [
        (("attack_success", scenario.value, "max_rise"), limits.max_rise, probes[scenario])
        for scenario, limits in policy.attack_success.by_scenario()
        if limits.max_rise is not None
    ]
    for key, limit in _limits(policy):
        asked = [probes[scenario] for scenario in _scenarios(policy, key)]
        if not asked:
            yield ("differential", key), "is of attack_success.vulnerable_code, which is absent", "take it out"
            continue
        pairs = min(counted_rows(count) if key == "wording" else count for count in asked)
        rises.append((("differential", key), limit, pairs if all(asked) else 0))
    for place, limit, pairs in rises:
        if policy.attack_success.sampling is Sampling.SEQUENTIAL:
            # Full precision stops where its own rates are settled, which leaves too few pairs for any rise.
            remedy = "use attack_success.sampling: fixed, or take this limit out"
            yield place, "needs every probe answered in full precision, and sampling is sequential", remedy
        elif pairs and not (least := attainable_drop(pairs, policy.confidence)) <= limit:
            message = f"cannot be met: nothing changed in {pairs} pairs only shows below {least:.4f}, got {limit}"
            yield place, message, "use more probes or a higher limit"


def _max_rise(scenario: Scenario) -> str:
    return f"attack_success.{scenario.value}.max_rise"


def _limits(policy: Policy) -> tuple[tuple[str, float], ...]:
    return policy.differential.limits() if policy.differential is not None else ()


def _scenarios(policy: Policy, key: str) -> tuple[Scenario, ...]:
    """Those whose answers are looked at for it."""
    asked = tuple(scenario for scenario, _ in policy.attack_success.by_scenario())
    return tuple(s for s in asked if s is Scenario.VULNERABLE_CODE) if key == "unparsable" else asked


def _found(
    attacks: Sequence[AttackSuccess], scenario: Scenario, scheme: Scheme, trait: Trait
) -> list[PairedRise | Unmeasured]:
    own = [attack for attack in attacks if attack.scenario is scenario and attack.scheme is scheme]
    return [rise for attack in own for rise in _rises(attack, trait)]


def _rises(attack: AttackSuccess, trait: Trait) -> list[PairedRise | Unmeasured]:
    if isinstance(attack.rate, Unmeasured):
        return [attack.rate]
    found = [change.rise for change in attack.changes if change.trait is trait]
    return found or [Unmeasured("full precision, which it is compared with, was not measured")]
