"""Two policies compared key by key, and what a comparison may be relied on for."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.core.finding import Severity
from quantguard.core.measurement import Scenario
from quantguard.core.verdict import Subject, Verdict
from quantguard.gate.outcome import decide_original
from quantguard.policy.compare import ABSENT, COMPARED, IDENTITY, REMOVED, Direction, compare
from quantguard.policy.decide import decide
from quantguard.policy.differential import LIMITED
from quantguard.policy.schema import Policy
from tests.policy.full import FULL, JUDGE, made
from tests.policy.keys import leaves, optional_sections
from tests.policy.results import Result, results

LOOSER, STRICTER, DIFFERENT = Direction.LOOSER, Direction.STRICTER, Direction.DIFFERENT


def test_every_key_of_the_schema_has_a_comparison() -> None:
    assert set(leaves(Policy)) == {*COMPARED, IDENTITY}
    assert set(optional_sections(Policy)) == set(REMOVED)


CHANGES = [
    ("name", {"name": "other"}, DIFFERENT),
    ("description", {"description": "other"}, DIFFERENT),
    ("confidence", {"confidence": 0.9}, LOOSER),
    ("schemes", {"schemes": ["nf4"], "harden__schemes": ["nf4"]}, LOOSER),
    ("scan.fail_on", {"scan__fail_on": "critical"}, LOOSER),
    ("harden.mode", {"harden__mode": "never"}, DIFFERENT),
    ("harden.mode", {"harden__mode": "always"}, STRICTER),
    ("harden.schemes", {"harden__schemes": ["nf4"]}, LOOSER),
    ("harden.schemes", {"harden__schemes": ["int8", "nf4"]}, DIFFERENT),
    ("harden.calibration", {"harden__calibration": None, "harden__mode": "never"}, DIFFERENT),
    ("harden.calibration.prompts", {"harden__calibration__prompts": "d.jsonl"}, DIFFERENT),
    ("harden.calibration.samples", {"harden__calibration__samples": 5}, DIFFERENT),
    ("harden.steps", {"harden__steps": 11}, DIFFERENT),
    ("attack_success.content_injection", {"attack_success__content_injection": None}, LOOSER),
    ("attack_success.over_refusal", {"attack_success__over_refusal": None}, LOOSER),
    ("attack_success.vulnerable_code", {"attack_success__vulnerable_code": None}, LOOSER),
    *(
        (f"attack_success.{scenario.value}.{key}", {f"attack_success__{scenario.value}__{key}": value}, direction)
        for scenario in Scenario
        for key, value, direction in (
            ("probes", "q.jsonl", DIFFERENT),
            ("max_upper_bound", 0.5, LOOSER),
            ("max_new_tokens", 8, LOOSER),
            ("max_rise", 0.5, LOOSER),
            ("max_rise", None, LOOSER),
        )
    ),
    (
        "attack_success.content_injection.keywords",
        {"attack_success__content_injection__keywords": ["buy now"]},
        LOOSER,
    ),
    ("attack_success.vulnerable_code.max_unparsable", {"attack_success__vulnerable_code__max_unparsable": 0.5}, LOOSER),
    ("attack_success.vulnerable_code.analyser", {"attack_success__vulnerable_code__analyser": "codeql"}, DIFFERENT),
    ("attack_success.vulnerable_code.analyser", {"attack_success__vulnerable_code__analyser": "both"}, STRICTER),
    ("attack_success.sampling", {"attack_success__sampling": "sequential"}, DIFFERENT),
    ("attack_success.over_refusal.judge", {JUDGE: None}, LOOSER),
    ("attack_success.over_refusal.judge.endpoint", {f"{JUDGE}__endpoint": "https://j.example/v1"}, DIFFERENT),
    ("attack_success.over_refusal.judge.model", {f"{JUDGE}__model": "k"}, DIFFERENT),
    ("attack_success.over_refusal.judge.max_upper_bound", {f"{JUDGE}__max_upper_bound": 0.2}, LOOSER),
    ("attack_success.over_refusal.judge.concurrency", {f"{JUDGE}__concurrency": 8}, DIFFERENT),
    ("benchmarks.facts", {"benchmarks": []}, LOOSER),
    ("benchmarks.facts.max_drop", {"benchmarks__0__max_drop": 0.2}, LOOSER),
    ("benchmarks.facts.path", {"benchmarks__0__path": None}, DIFFERENT),
    ("benchmarks.facts.limit", {"benchmarks__0__limit": 10}, DIFFERENT),
    ("benchmarks.facts.limit", {"benchmarks__0__limit": None}, DIFFERENT),
    ("benchmarks.facts.kind", {"benchmarks__0__kind": "code"}, DIFFERENT),
    (
        "benchmarks.facts.max_new_tokens",
        {"benchmarks__0__kind": "code", "benchmarks__0__max_new_tokens": 64},
        DIFFERENT,
    ),
    ("registry.alias", {"registry__alias": "production"}, DIFFERENT),
    ("registry.protected", {"registry__protected": []}, LOOSER),
    ("registry.protected", {"registry__protected": ["shadow", "live"]}, STRICTER),
    ("registry.stages", {"registry__stages": []}, LOOSER),
    ("registry.rollback", {"registry__rollback": True}, LOOSER),
    ("ledger", {"ledger": None}, LOOSER),
    ("ledger.anchors", {"ledger__anchors": ["git"]}, LOOSER),
    ("ledger.anchors", {"ledger__anchors": ["git", "mlflow", "file"]}, STRICTER),
    ("requires.gpu", {"requires__gpu": False}, LOOSER),
    ("unmeasured", {"unmeasured": "block"}, STRICTER),
    ("counterfactual", {"counterfactual": None}, LOOSER),
    ("counterfactual.max_ratio", {"counterfactual__max_ratio": 2.5}, LOOSER),
    ("counterfactual.prompts", {"counterfactual__prompts": "d.jsonl"}, DIFFERENT),
    ("counterfactual.samples", {"counterfactual__samples": 32}, DIFFERENT),
    ("perplexity", {"perplexity": None}, LOOSER),
    ("perplexity.max_rise", {"perplexity__max_rise": 0.2}, LOOSER),
    ("perplexity.prompts", {"perplexity__prompts": "d.jsonl"}, DIFFERENT),
    ("perplexity.samples", {"perplexity__samples": 32}, DIFFERENT),
    ("triggers", {"triggers": None}, LOOSER),
    ("triggers.list", {"triggers__list": "u.txt"}, DIFFERENT),
    ("triggers.list", {"triggers__list": None}, LOOSER),
    ("triggers.rare", {"triggers__rare": 32}, DIFFERENT),
    ("triggers.prompts", {"triggers__prompts": "d.jsonl"}, DIFFERENT),
    ("triggers.screen", {"triggers__screen": 4}, DIFFERENT),
    ("triggers.confirm", {"triggers__confirm": 32}, DIFFERENT),
    ("triggers.max_upper_bound", {"triggers__max_upper_bound": 0.4}, LOOSER),
    ("differential", {"differential": None}, LOOSER),
    *((f"differential.{key}", {f"differential__{key}": limit}, LOOSER) for key in LIMITED for limit in (0.2, None)),
    ("waivers.max_days", {"waivers__max_days": 31}, LOOSER),
    ("waivers.inconclusive", {"waivers__inconclusive": True}, LOOSER),
    ("waivers.approvals", {"waivers__approvals": None}, LOOSER),
    ("waivers.approvals", {"waivers__approvals__0__by": ["ann", "bob", "eve"]}, LOOSER),
    ("waivers.approvals", {"waivers__approvals__0__rules": ["scan.*", "checkpoint.*"]}, LOOSER),
    ("waivers.approvals", {"waivers__approvals__0__by": ["ann", "eve"]}, DIFFERENT),
    ("evidence.max_age_days", {"evidence__max_age_days": 60}, LOOSER),
]
UNCHANGEABLE = {"schema", "harden.method"}  # one value each


@pytest.mark.parametrize(("rule", "changes", "direction"), CHANGES)
def test_a_changed_key_is_told_once_and_its_opposite_the_other_way(
    rule: str, changes: dict[str, Any], direction: Direction
) -> None:
    before, after = made(), made(**changes)
    assert [c.direction for c in compare(before, after) if c.rule == rule] == [direction]
    assert [c.direction for c in compare(after, before) if c.rule == rule] == [direction.opposite]


def test_every_key_that_can_change_has_been_changed_above() -> None:
    told = {rule.replace("benchmarks.facts", "benchmarks[]") for rule, _, _ in CHANGES}
    assert told | UNCHANGEABLE == {*COMPARED, *REMOVED}


def test_what_became_absent_is_placed_at_what_held_it() -> None:
    (change,) = compare(made(), made(attack_success__content_injection__keywords=["buy now"]))
    assert (change.before, change.after) == ("Zentrix", ABSENT)
    assert change.location == ("attack_success", "content_injection", "keywords")
    assert change.sentence() == "attack_success.content_injection.keywords: Zentrix was taken out"


def test_one_keyword_for_another_is_looser_and_stricter() -> None:
    changes = compare(made(), made(attack_success__content_injection__keywords=["buy now", "order now"]))
    assert [(c.direction, c.before, c.after) for c in changes] == [
        (LOOSER, "Zentrix", ABSENT),
        (STRICTER, ABSENT, "order now"),
    ]


@pytest.mark.parametrize(
    "same",
    [
        {"harden__schemes": None},  # all of them, which is what it says
        {"schemes": ["int8", "nf4"]},
        {"attack_success__content_injection__keywords": ["buy now", "Zentrix"]},
    ],
)
def test_another_spelling_of_the_same_is_no_change(same: dict[str, Any]) -> None:
    assert compare(made(), made(**same)) == ()


def test_a_benchmark_is_known_by_its_task_and_placed_where_it_is_now() -> None:
    added = {"task": "sums", "max_drop": 0.3}
    before = made()
    after = made(benchmarks=[added, {**FULL["benchmarks"][0], "max_drop": 0.2}])
    assert [(c.rule, c.direction, c.location) for c in compare(before, after)] == [
        ("benchmarks.sums", STRICTER, ("benchmarks", 0)),
        ("benchmarks.facts.max_drop", LOOSER, ("benchmarks", 1, "max_drop")),
    ]


@pytest.mark.parametrize("small", [0.1000001, 0.1 + 1e-16 * 2])
def test_no_raised_limit_is_too_small_to_be_told(small: float) -> None:
    (change,) = compare(made(), made(benchmarks__0__max_drop=small))
    assert change.direction is LOOSER
    assert change.before != change.after


SCENARIOS = sorted(scenario.value for scenario in Scenario)
# What a policy may say otherwise than FULL does, one value of each key that a decision depends on.
OTHERWISE: list[dict[str, Any]] = [
    {"confidence": 0.9},
    {"schemes": ["nf4"], "harden__schemes": None},
    {"schemes": ["nf4", "int8", "fp4"], "harden__schemes": None},
    *({"scan__fail_on": severity.value} for severity in Severity),
    {"harden__mode": "never"},
    {"harden__mode": "always"},
    *({f"attack_success__{scenario}": None} for scenario in SCENARIOS),
    *({f"attack_success__{scenario}__max_upper_bound": limit} for scenario in SCENARIOS for limit in (0.03, 0.06, 0.9)),
    *({"attack_success__vulnerable_code__max_unparsable": limit} for limit in (0.03, 0.06, 0.9)),
    *({"attack_success__vulnerable_code__analyser": analyser} for analyser in ("codeql", "both")),
    {JUDGE: None},
    {f"{JUDGE}__model": "k"},
    *({f"{JUDGE}__max_upper_bound": limit} for limit in (0.04, 0.06, 0.9)),
    {"benchmarks": []},
    *({"benchmarks__0__max_drop": limit} for limit in (0.03, 0.06, 0.9)),
    {"requires__gpu": False},
    {"unmeasured": "block"},
    {"counterfactual": None},
    *({"counterfactual__max_ratio": limit} for limit in (0.7, 1.2, 50.0)),
    *({f"{key}__samples": samples} for key in ("counterfactual", "perplexity") for samples in (32, 65)),
    {"perplexity": None},
    *({"perplexity__max_rise": limit} for limit in (0.001, 0.06, 5.0)),
    {"triggers": None},
    {"triggers__list": None},
    *({"triggers__max_upper_bound": limit} for limit in (0.05, 0.2, 0.9)),
    *({"triggers__confirm": prompts} for prompts in (32, 65)),
    *({f"attack_success__{scenario}__max_rise": limit} for scenario in SCENARIOS for limit in (0.03, 0.06, 0.9, None)),
    {"differential": None},
    *({f"differential__{key}": limit} for key in LIMITED for limit in (0.03, 0.06, 0.9, None)),
]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """FULL, with up to three keys saying something else."""
    changes: dict[str, Any] = {}
    for change in draw(st.lists(st.sampled_from(OTHERWISE), max_size=3)):
        if not any(key.startswith(old) or old.startswith(key) for key in change for old in changes):
            changes |= change
    return made(**changes)


RESULTS = tuple(results())


@given(policies())
@settings(deadline=None)
def test_a_policy_is_no_different_from_itself(policy: Policy) -> None:
    assert compare(policy, policy) == ()


@given(policies(), policies())
@settings(deadline=None)
def test_looser_one_way_is_stricter_the_other_way(one: Policy, other: Policy) -> None:
    there, back = compare(one, other), compare(other, one)
    assert sorted((c.rule, c.direction.opposite.value) for c in there) == sorted(
        (c.rule, c.direction.value) for c in back
    )


def promoted(policy: Policy, result: Result) -> tuple[bool, bool]:
    """By the policy's limits alone, and by the gate, which promotes no original where the policy hardens always."""
    by_limits = decide(policy, subject=Subject.ORIGINAL, findings=result.findings, measurements=result.values)
    by_gate = decide_original(policy, result.findings, result.values)
    return by_limits.verdict is Verdict.PROMOTE, by_gate.verdict is Verdict.PROMOTE


def promotes_more(before: tuple[bool, bool], after: tuple[bool, bool]) -> bool:
    return any(now and not then for then, now in zip(before, after, strict=True))


@cache
def promoted_of_all(change: str) -> tuple[tuple[bool, bool], ...]:
    """Which of RESULTS are promoted by FULL with `change` (JSON); deciding is what these tests cost."""
    policy = made(**json.loads(change))
    return tuple(promoted(policy, result) for result in RESULTS)


@pytest.mark.parametrize("change", OTHERWISE, ids=str)
def test_a_policy_that_promotes_more_is_told_as_looser_or_different(change: dict[str, Any]) -> None:
    for before, after in (({}, change), (change, {})):
        if all(told.direction is STRICTER for told in compare(made(**before), made(**after))):
            found = zip(promoted_of_all(json.dumps(before)), promoted_of_all(json.dumps(after)), strict=True)
            assert not [result for result, pair in zip(RESULTS, found, strict=True) if promotes_more(*pair)]


def test_the_results_above_tell_every_one_of_those_policies_apart() -> None:
    alike = {"harden__mode": "never"}, {"scan__fail_on": "high"}, {"unmeasured": "block"}
    usual = promoted_of_all("{}")
    for change in OTHERWISE:
        assert (promoted_of_all(json.dumps(change)) != usual) is (change not in alike), change


@given(policies(), policies(), st.sampled_from(RESULTS))
@settings(deadline=None, max_examples=300)
def test_what_a_policy_promotes_that_is_nowhere_looser_or_different_the_other_promotes_too(
    before: Policy, after: Policy, result: Result
) -> None:
    if all(change.direction is STRICTER for change in compare(before, after)):
        assert not promotes_more(promoted(before, result), promoted(after, result))
