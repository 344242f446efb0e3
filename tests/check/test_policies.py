"""What a change of policies is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.check.facts import Answer
from quantguard.core.remark import Level
from tests.check.repository import PATH, Repository, messages, told, with_policy
from tests.policy.written import POLICY, write_inputs

ERROR, WARNING, NOTICE = Level.ERROR, Level.WARNING, Level.NOTICE


def line_of(text: str, words: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


def test_a_change_of_nothing_passes(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    result = repository.check()
    assert (result.answer, result.remarks, result.policies, result.changed) == (Answer.PASSED, (), 1, 0)
    repository.write("README.md", "unrelated")
    assert repository.check().remarks == ()


def test_without_policy_and_manifest_there_is_nothing_to_check(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.write("a.yaml", "schema: other/1\n")
    repository.write("b.yaml", "# quantguard.policy/1\na: [")
    repository.commit()
    assert repository.check().answer is Answer.NOTHING
    assert repository.check().answer.exit_code == 3


@pytest.mark.parametrize("committed", [False, True])
def test_a_looser_limit_blocks_at_its_line_until_it_is_allowed(tmp_path: Path, committed: bool) -> None:
    repository = with_policy(tmp_path)
    repository.replace(PATH, "max_upper_bound: 0.1", "max_upper_bound: 0.5")
    if committed:
        repository.commit()
    line = f"{PATH}:{line_of(POLICY, 'max_upper_bound: 0.1')}"
    result = repository.check()
    assert (told(result), result.answer) == ([(ERROR, line, "check.looser")], Answer.BLOCKED)
    assert "max_upper_bound: 0.1 became 0.5" in messages(result)
    allowed = repository.check(allow_looser=True)
    assert (told(allowed), allowed.answer) == ([(WARNING, line, "check.looser")], Answer.PASSED)


def test_a_stricter_limit_is_a_notice_and_a_different_one_a_warning(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    repository.replace(PATH, "fail_on: high", "fail_on: low")
    repository.replace(PATH, "alias: champion", "alias: production")
    repository.replace(PATH, "description: for tests", "description: for more tests")
    result = repository.check()
    assert [(level, rule) for level, _, rule in told(result)] == [
        (WARNING, "check.different"),
        (NOTICE, "check.different"),
        (NOTICE, "check.stricter"),
    ]
    assert result.answer is Answer.PASSED


def test_what_was_taken_out_is_told_at_what_held_it(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    start, end = POLICY.index("  vulnerable_code:"), POLICY.index("benchmarks:")
    repository.write(PATH, POLICY[:start] + POLICY[end:])
    (remark,) = repository.check().remarks
    assert remark.place is not None
    assert remark.place.line == line_of(POLICY, "attack_success:")
    assert remark.message == "looser: attack_success.vulnerable_code: it was taken out"


def test_every_problem_of_a_changed_policy_is_an_error_at_its_line(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    repository.write(PATH, POLICY.replace("steps: 10", "steps: 0").replace("confidence: 0.95", "confidnce: 0.95"))
    result = repository.check()
    assert told(result) == [(ERROR, f"{PATH}:4", "check.invalid"), (ERROR, f"{PATH}:12", "check.invalid")]
    assert "did you mean confidence?" in messages(result)
    assert str(tmp_path) not in messages(result)


def test_a_problem_that_the_change_did_not_bring_is_a_warning(tmp_path: Path) -> None:
    repository = with_policy(tmp_path, POLICY.replace("steps: 10", "steps: 0"))
    assert told(repository.check()) == [(WARNING, f"{PATH}:12", "check.invalid")]
    repository.write(PATH, POLICY)
    assert told(repository.check()) == [(WARNING, f"{PATH}:1", "check.new")]


@pytest.mark.parametrize(
    ("now", "rule", "level"),
    [
        (["question 1", *(f"question {i}" for i in range(2, 60)), "another"], "check.looser", ERROR),
        ([*(f"question {i}" for i in range(60)), "another"], "check.different", WARNING),
        ([f"question {i}" for i in reversed(range(60))], "", NOTICE),
    ],
)
def test_other_probes_are_another_policy(tmp_path: Path, now: list[str], rule: str, level: Level) -> None:
    repository = with_policy(tmp_path)
    repository.write("policies/probes.jsonl", "".join(f'{{"prompt": "{text}"}}\r\n' for text in now))
    result = repository.check()
    lines = [number for number, line in enumerate(POLICY.splitlines(), 1) if "probes: probes.jsonl" in line]
    assert told(result) == ([(level, f"{PATH}:{line}", rule) for line in lines] if rule else [])
    assert result.changed == 1
    if level is ERROR:
        assert "60 probes became 60 rows, 1 gone ('question 0'), 1 new ('another')" in messages(result)


def test_other_questions_and_calibration_are_told(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    repository.write("policies/questions.jsonl", '{"q": 1}\n' * 59)
    rows = "".join(f'{{"prompt": "other {i}"}}\n' for i in range(60))
    repository.write("policies/calibration.jsonl", rows)
    result = repository.check()
    assert [(r.level, r.subject) for r in result.remarks] == [
        (WARNING, "harden.calibration.prompts"),
        (WARNING, "benchmarks.questions.path"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("calibration.jsonl", "neutral", "60 prompts became 607 rows, 60 gone"),
        ("neutral", "self", "neutral became self"),
        ("self", "calibration.jsonl", "self became calibration.jsonl"),
    ],
)
def test_another_source_of_calibration_is_told(tmp_path: Path, before: str, after: str, said: str) -> None:
    repository = with_policy(tmp_path, POLICY.replace("prompts: calibration.jsonl", f"prompts: {before}"))
    assert repository.check().remarks == ()
    repository.replace(PATH, f"prompts: {before}", f"prompts: {after}")
    result = repository.check()
    assert {(r.level, r.subject) for r in result.remarks} == {(WARNING, "harden.calibration.prompts")}
    assert said in messages(result)


def test_built_in_probes_for_a_file_of_one_s_own_are_told_as_looser(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    repository.replace(PATH, "probes: probes.jsonl\n    keywords", "probes: builtin\n    keywords")
    result = repository.check()
    assert {(r.level, r.subject) for r in result.remarks} == {
        (WARNING, "attack_success.content_injection.probes"),
        (ERROR, "attack_success.content_injection.probes"),
    }
    assert "probes.jsonl became builtin" in messages(result)
    assert "60 probes became 322 rows, 60 gone" in messages(result)


def test_probes_that_are_gone_make_the_policy_invalid(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    (repository.root / "policies/probes.jsonl").unlink()
    result = repository.check()
    assert {(level, rule) for level, _, rule in told(result)} == {(ERROR, "check.invalid")}
    assert "policies/probes.jsonl: No such file" in messages(result)
    assert "quantguard-check-" not in messages(result)


def test_a_policy_that_is_gone_is_looser(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    (repository.root / PATH).unlink()
    assert told(repository.check()) == [(ERROR, f"{PATH}:1", "check.looser")]
    assert repository.check(allow_looser=True).answer is Answer.PASSED


@pytest.mark.parametrize("line", ["", "schema: other/1\n"])
def test_a_policy_that_no_longer_says_so_is_still_looked_at(tmp_path: Path, line: str) -> None:
    repository = with_policy(tmp_path)
    repository.replace(PATH, "schema: quantguard.policy/1\n", line)
    assert told(repository.check()) == [(ERROR, f"{PATH}:1", "check.invalid")]


@pytest.mark.parametrize("changed", [False, True])
def test_a_renamed_policy_is_compared_with_what_it_was(tmp_path: Path, changed: bool) -> None:
    repository = with_policy(tmp_path)
    repository.git("mv", PATH, "policies/other.yaml")
    if changed:
        repository.replace("policies/other.yaml", "confidence: 0.95", "confidence: 0.9")
    expected = [(WARNING, "policies/other.yaml:1", "check.moved")]
    expected = [(ERROR, "policies/other.yaml:4", "check.looser"), *expected] if changed else expected
    result = repository.check()
    assert told(result) == expected
    assert f"was {PATH}" in messages(result)


def test_a_policy_under_another_name_and_path_is_one_gone_and_one_new(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    repository.git("mv", PATH, "policies/other.yml")
    repository.replace("policies/other.yml", "name: small", "name: lax")
    result = repository.check()
    assert told(result) == [(ERROR, f"{PATH}:1", "check.looser"), (NOTICE, "policies/other.yml:1", "check.new")]


@pytest.mark.parametrize(
    "spelling",
    ["schema: quantguard.policy/1", '"sch\\x65ma": "quant\\u0067uard.policy/1"', "schema: !!str quantguard.policy/1"],
)
def test_a_new_policy_is_found_in_any_spelling(tmp_path: Path, spelling: str) -> None:
    repository = with_policy(tmp_path)
    write_inputs(repository.write("deep/er/new.yml", POLICY.replace("schema: quantguard.policy/1", spelling)).parent)
    assert told(repository.check()) == [(NOTICE, "deep/er/new.yml:1", "check.new")]


def test_a_new_policy_that_is_not_yaml_is_an_error(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    repository.write("new.yaml", "schema: quantguard.policy/1\na: &x 1\nb: *x\n")
    assert told(repository.check()) == [(ERROR, "new.yaml:3", "check.invalid")]


def test_line_ends_change_nothing(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    for name in (PATH, "policies/probes.jsonl", "policies/questions.yaml", "policies/questions.jsonl"):
        data = (repository.root / name).read_bytes()
        repository.write(name, data.replace(b"\n", b"\r\n"))
    result = repository.check()
    assert (result.remarks, result.changed) == ((), 1)


def test_the_line_is_right_under_carriage_returns(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    loose = POLICY.replace("confidence: 0.95", "confidence: 0.9")
    repository.write(PATH, loose.replace("\n", "\r\n"))
    assert told(repository.check()) == [(ERROR, f"{PATH}:4", "check.looser")]


def test_only_the_change_itself_is_compared_when_the_base_has_moved_on(tmp_path: Path) -> None:
    repository = with_policy(tmp_path)
    repository.write("other.txt", "unrelated")
    repository.commit()
    repository.git("switch", "--quiet", "main")
    repository.replace(PATH, "max_upper_bound: 0.1", "max_upper_bound: 0.2")
    repository.commit("looser, and allowed")
    repository.git("switch", "--quiet", "change")
    assert repository.check().remarks == ()
    repository.git("merge", "--quiet", "--no-edit", "main")
    assert repository.check().remarks == ()
    repository.replace(PATH, "max_upper_bound: 0.2", "max_upper_bound: 0.3")
    assert [rule for _, _, rule in told(repository.check())] == ["check.looser"]


EXTENDING = "schema: quantguard.policy/1\nname: mine\nextends: ../small.yaml\nconfidence: 0.9\n"
OWN = "policies/team/mine.yaml"


def extending(root: Path, text: str = EXTENDING) -> Repository:
    repository = with_policy(root)
    repository.git("switch", "--quiet", "main")
    repository.write(OWN, text)
    repository.commit()
    repository.git("switch", "--quiet", "change")
    repository.git("merge", "--quiet", "main")
    return repository


def test_a_looser_base_is_looser_for_what_extends_it_too(tmp_path: Path) -> None:
    repository = extending(tmp_path)
    assert (repository.check().remarks, repository.check().changed) == ((), 0)
    repository.replace(PATH, "fail_on: high", "fail_on: critical")
    result = repository.check()
    assert told(result) == [
        (ERROR, f"{PATH}:{line_of(POLICY, 'fail_on')}", "check.looser"),
        (ERROR, f"{OWN}:3", "check.looser"),
    ]
    assert result.changed == 2


def test_a_looser_limit_of_what_extends_is_told_at_its_own_line(tmp_path: Path) -> None:
    repository = extending(tmp_path)
    repository.replace(OWN, "confidence: 0.9", "confidence: 0.8")
    assert told(repository.check()) == [(ERROR, f"{OWN}:4", "check.looser")]
    repository.replace(OWN, "extends: ../small.yaml", "extends: permissive")
    assert "check.looser" in {rule for _, _, rule in told(repository.check())}


def test_what_is_wrong_in_a_base_is_told_at_the_extends_with_its_line(tmp_path: Path) -> None:
    repository = extending(tmp_path)
    repository.replace(PATH, "steps: 10", "steps: 0")
    result = repository.check()
    assert (ERROR, f"{OWN}:3", "check.invalid") in told(result)
    assert f"{PATH}:12: harden.steps" in messages(result)
    assert str(tmp_path) not in messages(result)


@pytest.mark.parametrize(
    ("named", "rule", "said"),
    [
        ("../../../../etc/policy.yaml", "check.unsafe_path", "leads out of the repository"),
        ("../link.yaml", "check.unsafe_path", "is a symbolic link"),
        ("absent.yaml", "check.invalid", "No such file"),
        ("mine.yaml", "check.invalid", "circle"),
        ("standrad", "check.invalid", "did you mean standard?"),
    ],
)
def test_what_cannot_be_extended_is_an_error_at_the_extends(tmp_path: Path, named: str, rule: str, said: str) -> None:
    repository = extending(tmp_path)
    (repository.root / "policies/link.yaml").symlink_to("small.yaml")
    repository.replace(OWN, "../small.yaml", named)
    result = repository.check()
    assert (ERROR, f"{OWN}:3", rule) in told(result)
    assert said in messages(result)


@pytest.mark.parametrize(
    "section",
    [
        "counterfactual: {prompts: own.jsonl, samples: 1, max_ratio: 2}",
        "perplexity: {prompts: own.jsonl, samples: 40, max_rise: 0.2}",
    ],
)
def test_prompts_of_every_section_are_read_from_the_tree(tmp_path: Path, section: str) -> None:
    repository = with_policy(tmp_path)
    repository.write("policies/own.jsonl", "".join(f'{{"prompt": "{i}"}}\n' for i in range(40)))
    repository.write(PATH, f"{POLICY}{section}\n")
    assert {rule for _, _, rule in told(repository.check())} == {"check.stricter"}
