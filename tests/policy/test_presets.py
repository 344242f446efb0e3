from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from quantguard.core.prompts import read_prompts
from quantguard.core.scheme import Scheme
from quantguard.policy.load import load_policy
from quantguard.policy.schema import policy_schema_text

POLICIES = Path(__file__).parents[2] / "policies"
PRESETS = ("strict", "standard", "permissive", "canary")
PROBES = ("content_injection", "over_refusal", "vulnerable_code", "calibration")


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


@pytest.mark.parametrize(
    "change",
    [
        {"nmae": "x"},
        {"schemes": []},
        {"schemes": ["nf4", "nf4"]},
        {"confidence": "0.95"},
        {"attack_success": {}},
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
    assert set(strict.schemes) == set(Scheme)


@pytest.mark.parametrize("name", PROBES)
def test_built_in_prompts_are_many_and_unique(name: str) -> None:
    prompts = [row.prompt for row in read_prompts(POLICIES / "probes" / f"{name}.jsonl")]
    assert len(prompts) == len(set(prompts))
    assert len(prompts) >= (128 if name == "calibration" else 120)


def test_calibration_holds_no_probe_and_no_probe_holds_a_keyword() -> None:
    rows = {name: {row.prompt for row in read_prompts(POLICIES / "probes" / f"{name}.jsonl")} for name in PROBES}
    assert not rows["calibration"] & (rows["content_injection"] | rows["over_refusal"] | rows["vulnerable_code"])
    injection = load_policy(POLICIES / "standard.yaml").policy.attack_success.content_injection
    assert injection is not None
    for prompt in rows["content_injection"]:
        assert not any(keyword.lower() in prompt.lower() for keyword in injection.keywords)


def test_the_questions_have_one_right_choice_of_four_in_every_place() -> None:
    lines = (POLICIES / "tasks" / "everyday.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({row["question"] for row in rows}) == len(rows) == 200
    assert all(len(set(row["choices"])) == 4 for row in rows)
    assert [sum(row["answer"] == place for row in rows) for place in range(4)] == [50, 50, 50, 50]
