"""The place of each rule in its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.core.finding import Finding, Severity
from quantguard.core.measurement import Environment, Measurements
from quantguard.core.remark import Place
from quantguard.core.verdict import Subject
from quantguard.gate.outcome import decide_original
from quantguard.policy.document import parse_document
from quantguard.policy.load import LoadedPolicy, load_policy
from tests.policy.written import POLICY, spoilt, write_policy

NOTHING = Measurements(Subject.ORIGINAL, "sha256:00", (), (), Environment("cpu", 0, ()))
FOUND = (Finding("scan.boundary", Severity.CRITICAL, "w", "weights pile up"),)
STRICT = (
    spoilt("mode: when-suspicious", "mode: always").replace(
        "max_upper_bound: 0.2", "max_upper_bound: 0.2\n    max_rise: 0.25"
    )
    + "requires: {gpu: true}\ncounterfactual: {prompts: calibration.jsonl, samples: 8, max_ratio: 2.5}\n"
    + "perplexity: {prompts: calibration.jsonl, samples: 40, max_rise: 0.15}\n"
    + "triggers: {prompts: calibration.jsonl, screen: 2, confirm: 40, max_upper_bound: 0.25}\n"
    + "differential: {wording: 0.2, length: 0.15}\n"
)


def cut(path: Path, place: Place) -> str:
    """What a reader sees marked."""
    lines = path.read_text(encoding="utf-8").split("\n")[place.line - 1 : place.end_line]
    lines[-1] = lines[-1][: place.end_column - 1]
    lines[0] = lines[0][place.column - 1 :]
    return "\n".join(lines)


def marked(policy: LoadedPolicy) -> dict[str, str]:
    return {rule: cut(policy.path, place) for rule, place in policy.anchors}


def test_the_value_of_each_rule_is_marked(tmp_path: Path) -> None:
    path = write_policy(tmp_path, STRICT)
    assert marked(load_policy(path)) == {
        "scan.fail_on": "high",
        "harden.mode": "always",
        "attack_success.content_injection.max_upper_bound": "0.1",
        "attack_success.vulnerable_code.max_upper_bound": "0.2",
        "attack_success.vulnerable_code.max_unparsable": "0.3",
        "attack_success.vulnerable_code.max_rise": "0.25",
        "differential.wording": "0.2",
        "differential.length": "0.15",
        "benchmarks.questions.max_drop": "0.2",
        "benchmarks.built_in.max_drop": "0.5",
        "requires.gpu": "true",
        "counterfactual.max_ratio": "2.5",
        "perplexity.max_rise": "0.15",
        "triggers.max_upper_bound": "0.25",
    }


def test_every_rule_that_is_decided_by_has_a_place(tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path, STRICT))
    reasons = decide_original(policy.policy, FOUND, NOTHING).reasons
    assert {reason.rule for reason in reasons} == {rule for rule, _ in policy.anchors}


@pytest.mark.parametrize("preset", ["strict", "standard", "permissive", "canary"])
def test_every_rule_of_the_presets_has_a_place_in_them(preset: str) -> None:
    policy = load_policy(Path(__file__).parents[2] / "policies" / f"{preset}.yaml")
    reasons = decide_original(policy.policy, (), NOTHING).reasons
    assert {reason.rule for reason in reasons} <= {rule for rule, _ in policy.anchors}
    assert all(cut(policy.path, place).strip() for _, place in policy.anchors)


@pytest.mark.parametrize(
    ("text", "rule", "seen"),
    [
        (POLICY, "requires.gpu", "schema: quantguard.policy/1"),  # absent altogether: the first line
        (POLICY + "requires: {}\n", "requires.gpu", "requires"),  # the nearest section that is there
        (spoilt("{fail_on: high}", "{'fail_on': \"high\"}"), "scan.fail_on", '"high"'),
        (spoilt("{fail_on: high}", "\n  größe: 1").replace("größe: 1", "fail_on:   high # ü"), "scan.fail_on", "high"),
        (POLICY.replace("\n", "\r\n"), "harden.mode", "when-suspicious"),
    ],
)
def test_a_rule_is_marked_however_it_is_written(tmp_path: Path, text: str, rule: str, seen: str) -> None:
    path = write_policy(tmp_path, text)
    path.write_bytes(text.encode())
    assert marked(load_policy(path))[rule].rstrip("\r") == seen


def test_columns_count_characters(tmp_path: Path) -> None:
    text = spoilt("- {task: questions, path", "- {task: questions, max_drop: 0.2, path").replace(
        "questions.yaml, max_drop: 0.2", "ü-🙂.yaml"
    )
    document = parse_document(tmp_path / "p.yaml", text.encode())
    place = document.place(("benchmarks", 0, "limit"))
    assert text.split("\n")[place.line - 1][place.column - 1 : place.end_column - 1] == "50"


def test_a_whole_entry_or_section_is_marked_by_its_first_word(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(POLICY, encoding="utf-8")
    document = parse_document(path, path.read_bytes())
    assert cut(path, document.place(("harden",))) == "harden"
    assert cut(path, document.place(("benchmarks", 1))) == "task"
    assert cut(path, document.place(("benchmarks", 1, "path"))) == "task"
    assert cut(path, document.place(("benchmarks", 7, "path"))) == "benchmarks"
    assert cut(path, document.place(())) == "schema: quantguard.policy/1"


def test_the_file_is_named_as_the_user_named_it(tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path))
    assert {place.file for _, place in policy.anchors} == {(tmp_path / "policy.yaml").as_posix()}
