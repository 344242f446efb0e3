from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from scipy.stats import beta

from quantguard.core.measurement import Scenario
from quantguard.core.prompts import read_prompts
from quantguard.core.scheme import Scheme
from quantguard.core.suites import builtin_suite
from quantguard.policy.json_schema import policy_schema_text
from quantguard.policy.load import load_policy
from quantguard.policy.schema import Sampling

POLICIES = Path(__file__).parents[2] / "policies"
PRESETS = ("strict", "standard", "permissive", "canary")


def schema() -> Any:
    return json.loads((POLICIES / "policy.schema.json").read_text(encoding="utf-8"))


def test_the_checked_in_schema_is_current() -> None:
    written = (POLICIES / "policy.schema.json").read_text(encoding="utf-8")
    assert written == policy_schema_text(), "write policy_schema_text() to policies/policy.schema.json"
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_under_the_schema_and_under_the_loader(name: str) -> None:
    path = POLICIES / f"{name}.yaml"
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema())
    assert load_policy(path).policy.name == name


EXTENDING: dict[str, Any] = {"schema": "quantguard.policy/1", "name": "mine", "extends": "standard"}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"extends": "policies/base.yml"},
        {"attack_success": {"over_refusal": {"max_upper_bound": 0.2}}, "harden": {"steps": 5}},
        {"attack_success": {"sampling": "sequential"}, "registry": {}},
    ],
)
def test_a_policy_that_extends_another_need_not_say_what_that_says(said: dict[str, Any]) -> None:
    jsonschema.validate({**EXTENDING, **said}, schema())
    del (whole := {**EXTENDING, **said})["extends"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, schema())


@pytest.mark.parametrize(
    "said",
    [
        {"extends": "canary"},
        {"extends": "/etc/policy.yaml"},
        {"extends": ["standard"]},
        {"harden": {"stepps": 5}},
        {"confidence": 2},
        {"benchmarks": [{"task": "builtin"}]},
    ],
)
def test_what_it_says_must_be_right_all_the_same(said: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**EXTENDING, **said}, schema())


@pytest.mark.parametrize(
    "change",
    [
        {"nmae": "x"},
        {"schemes": []},
        {"schemes": ["nf4", "nf4"]},
        {"confidence": "0.95"},
        {"attack_success": {}},
        {"attack_success": {"sampling": "fixed"}},
        {"harden": {"mode": "never", "schemes": None}},
        {"registry": {"alias": "a/b"}},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(change: dict[str, Any]) -> None:
    good = yaml.safe_load((POLICIES / "standard.yaml").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**good, **change}, schema())


def test_presets_go_from_strict_to_permissive() -> None:
    strict, standard, permissive = (load_policy(POLICIES / f"{name}.yaml").policy for name in PRESETS[:3])
    assert strict.confidence >= standard.confidence >= permissive.confidence
    for tight, loose in [(strict, standard), (standard, permissive)]:
        assert loose.scan.fail_on.at_least(tight.scan.fail_on)
        limits = dict(tight.attack_success.by_scenario())
        for scenario, limit in loose.attack_success.by_scenario():
            assert limits[scenario].max_upper_bound < limit.max_upper_bound
        assert tight.benchmarks[0].max_drop < loose.benchmarks[0].max_drop
    assert set(strict.schemes) == set(Scheme) - {Scheme.FP4_DOUBLE}


def test_calibration_prompts_are_many_and_unique() -> None:
    prompts = [row.prompt for row in read_prompts(POLICIES / "probes" / "calibration.jsonl")]
    assert len(prompts) == len(set(prompts))
    assert len(prompts) >= 128


@pytest.mark.parametrize("name", ["strict", "standard", "permissive"])
def test_the_probes_of_a_preset_are_built_in(name: str) -> None:
    """A copy of the file alone is a whole policy as far as its probes go."""
    loaded = load_policy(POLICIES / f"{name}.yaml")
    digests = {file.key: file.digest for file in loaded.inputs}
    for scenario, limits in loaded.policy.attack_success.by_scenario():
        assert limits.probes == "builtin"
        assert digests[f"attack_success.{scenario.value}.probes"] == builtin_suite(scenario).digest


def test_a_first_look_asks_until_it_is_settled_and_what_decides_over_a_registry_asks_all() -> None:
    sampling = {name: load_policy(POLICIES / f"{name}.yaml").policy.attack_success.sampling for name in PRESETS}
    assert {name for name, kind in sampling.items() if kind is Sampling.SEQUENTIAL} == {"permissive"}


TOLERATED = r"max_(?:upper_bound|unparsable): (?P<limit>[0-9.]+)  # at most (?P<harmful>\d+) of (?P<probes>\d+)"


@pytest.mark.parametrize("name", ["strict", "standard"])
def test_how_many_harmful_answers_a_preset_tolerates_is_what_it_says(name: str) -> None:
    text = (POLICIES / f"{name}.yaml").read_text(encoding="utf-8")
    tail = (1 - load_policy(POLICIES / f"{name}.yaml").policy.confidence) / 2
    told = [(float(m["limit"]), int(m["harmful"]), int(m["probes"])) for m in re.finditer(TOLERATED, text)]
    assert len(told) >= 3
    assert {probes for _, _, probes in told} == {len(builtin_suite(scenario).prompts) for scenario in Scenario}
    for limit, harmful, probes in told:
        assert beta.ppf(1 - tail, harmful + 1, probes - harmful) <= limit
        assert beta.ppf(1 - tail, harmful + 2, probes - harmful - 1) > limit
