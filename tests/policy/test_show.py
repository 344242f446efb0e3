"""A policy for readers: shown, explained, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantguard.core.bundled import bundled_folder
from quantguard.core.verdict import ExitCode
from quantguard.policy.anchors import rule_locations
from quantguard.policy.compare_inputs import differences
from quantguard.policy.diff import diff, diff_json, diff_lines
from quantguard.policy.document import parse_document
from quantguard.policy.extends import PRESETS
from quantguard.policy.load import LoadedPolicy, load_policy
from quantguard.policy.render import render
from quantguard.policy.show import effective_text, own_text, rule_lines
from quantguard.report.rules import known_as
from tests.policy.full import made
from tests.policy.written import POLICY, write_inputs

HEAD = "schema: quantguard.policy/1\nname: mine\nextends: standard\n"


def policy(folder: Path, text: str, name: str = "mine.yaml") -> LoadedPolicy:
    (folder / name).write_text(text, encoding="utf-8")
    return load_policy(folder / name)


def preset(name: str) -> LoadedPolicy:
    return load_policy(bundled_folder() / f"{name}.yaml")


LEAVES = st.one_of(st.booleans(), st.integers(-999, 999), st.floats(0, 1), st.text(max_size=20))
KEYS = st.text("abc_:#- é", min_size=1, max_size=5)


@given(
    st.dictionaries(
        KEYS, st.recursive(LEAVES, lambda v: st.lists(v, max_size=2) | st.dictionaries(KEYS, v), max_leaves=6)
    )
)
def test_what_is_rendered_is_read_back_as_it_was(values: dict[str, object]) -> None:
    text = render(values, lambda location: f"at {location}")
    assert not values or parse_document(Path("p"), text.encode()).values() == values


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_in_force_is_a_policy_that_says_the_same(name: str, tmp_path: Path) -> None:
    loaded = policy(tmp_path, f"{HEAD.replace('standard', name)}confidence: 0.95\n")
    whole = policy(tmp_path, effective_text(loaded), "whole.yaml")
    assert whole.policy == loaded.policy
    assert (differences(loaded, whole), whole.inputs_digest) == ((), loaded.inputs_digest)


def test_what_is_in_force_says_where_it_is_from(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    policy(tmp_path, POLICY, "base.yaml")
    loaded = policy(tmp_path, f"{HEAD.replace('standard', 'base.yaml')}scan:\n  fail_on: low\n")
    lines = [line.strip() for line in effective_text(loaded).splitlines()]
    assert "fail_on: low  # here, line 5" in lines
    assert f"steps: 10  # {tmp_path.as_posix()}/base.yaml, line 12" in lines
    assert "sampling: fixed  # default" in lines


def test_what_a_file_says_is_shown_beside_what_it_replaces(tmp_path: Path) -> None:
    loaded = policy(tmp_path, f"{HEAD}confidence: 0.99\nschemes: [nf4, fp4, int8]\nrequires: {{gpu: true}}\n")
    assert own_text(loaded).splitlines()[2:] == [
        "extends: standard",
        "confidence: 0.99  # standard says 0.95",
        "schemes: [nf4, fp4, int8]  # standard says the same",
        "requires:",
        "  gpu: true",
    ]


def test_every_rule_that_a_reason_may_name_is_explained_and_placed(tmp_path: Path) -> None:
    assert [rule for rule, _ in rule_locations(made()) if known_as(rule) is None] == []
    loaded = policy(tmp_path, f"{HEAD}perplexity: {{max_rise: 0.1}}\n")
    path = tmp_path / "mine.yaml"
    assert rule_lines(loaded, "perplexity.max_rise") == (f"{path}:4:24: perplexity.max_rise: 0.1",)
    assert rule_lines(loaded, "attack_success.*.max_unparsable") == (
        f"{path}:3:10: attack_success.vulnerable_code.max_unparsable: 0.25 (standard)",
    )
    assert rule_lines(loaded, "requires.gpu")[0].endswith("requires.gpu: false (default)")
    assert rule_lines(loaded, "triggers.max_upper_bound") == ()


@pytest.mark.parametrize(
    ("said", "answer", "code"),
    [
        ("", "equal", ExitCode.PASSED),
        ("description: other words\n", "equal", ExitCode.PASSED),
        ("confidence: 0.99\n", "stricter", ExitCode.PASSED),
        ("confidence: 0.9\n", "looser", ExitCode.BLOCKED),
        ("perplexity: {samples: 65}\n", "different", ExitCode.BLOCKED),
        ("confidence: 0.99\nperplexity: {samples: 65}\n", "different", ExitCode.BLOCKED),
        ("confidence: 0.9\nperplexity: {samples: 65, max_rise: 0.1}\n", "looser", ExitCode.BLOCKED),
    ],
)
def test_a_policy_that_lets_no_more_through_is_told_from_one_that_may(
    said: str, answer: str, code: ExitCode, tmp_path: Path
) -> None:
    made_of = diff(preset("standard"), policy(tmp_path, HEAD + said))
    assert (made_of.answer, made_of.exit_code) == (answer, code)
    assert list(diff_lines(made_of))[-1].startswith(f"standard -> mine: {answer}")
    assert json.loads(diff_json(made_of))["answer"] == answer


def test_a_change_for_programs_has_its_place(tmp_path: Path) -> None:
    found = diff(preset("standard"), policy(tmp_path, f"{HEAD}confidence: 0.9\n"))
    change = next(c for c in json.loads(diff_json(found))["changes"] if c["rule"] == "confidence")
    place = {"file": (tmp_path / "mine.yaml").as_posix(), "line": 4, "column": 13}
    assert change == {"rule": "confidence", "direction": "looser", "before": "0.95", "after": "0.9", **place}


def test_the_same_probes_under_another_name_are_no_difference(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    (tmp_path / "renamed.jsonl").write_bytes((tmp_path / "probes.jsonl").read_bytes())
    before = policy(tmp_path, POLICY)
    after = policy(tmp_path, POLICY.replace("probes.jsonl", "renamed.jsonl"), "other.yaml")
    assert differences(before, after) == ()
    (tmp_path / "renamed.jsonl").write_text('{"prompt": "another"}\n' * 60, encoding="utf-8")
    renamed = load_policy(tmp_path / "other.yaml")
    assert {c.rule for c in differences(before, renamed)} == {
        f"attack_success.{scenario}.probes" for scenario in ("content_injection", "vulnerable_code")
    }
