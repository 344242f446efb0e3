"""Where in its file a policy says each rule that a decision gives its reasons by."""

from __future__ import annotations

from collections.abc import Iterator

from quantguard.core.remark import Place
from quantguard.policy.document import Location
from quantguard.policy.extends import Written
from quantguard.policy.judging import RULE as JUDGE_RULE
from quantguard.policy.schema import Policy, VulnerableCodeLimits


def rule_places(policy: Policy, written: Written) -> tuple[tuple[str, Place], ...]:
    """(rule, place) for every rule of `policy`, which was read from `written`.

    A benchmark's rule names its task, where the file has its place in a list.
    """
    return tuple((rule, written.place(location)) for rule, location in rule_locations(policy))


def rule_locations(policy: Policy) -> Iterator[tuple[str, Location]]:
    """(rule, key) for every rule of `policy`, in the order of the schema."""
    yield "scan.fail_on", ("scan", "fail_on")
    yield "harden.mode", ("harden", "mode")
    for scenario, limits in policy.attack_success.by_scenario():
        keys = ["max_upper_bound"] + (["max_unparsable"] if isinstance(limits, VulnerableCodeLimits) else [])
        keys += ["max_rise"] if limits.max_rise is not None else []
        for key in keys:
            yield f"attack_success.{scenario.value}.{key}", ("attack_success", scenario.value, key)
    if policy.judge() is not None:
        yield JUDGE_RULE, tuple(JUDGE_RULE.split("."))
    for index, benchmark in enumerate(policy.benchmarks):
        yield f"benchmarks.{benchmark.task}.max_drop", ("benchmarks", index, "max_drop")
    if policy.counterfactual is not None:
        yield "counterfactual.max_ratio", ("counterfactual", "max_ratio")
    if policy.perplexity is not None:
        yield "perplexity.max_rise", ("perplexity", "max_rise")
    if policy.triggers is not None:
        yield "triggers.max_upper_bound", ("triggers", "max_upper_bound")
    for key, _ in policy.differential.limits() if policy.differential is not None else ():
        yield f"differential.{key}", ("differential", key)
    yield "requires.gpu", ("requires", "gpu")
