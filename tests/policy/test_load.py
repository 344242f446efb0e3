from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from quantguard.core.calibration import neutral_prompts
from quantguard.core.errors import PolicyError
from quantguard.core.measurement import Scenario
from quantguard.core.problems import BUILTIN_PROBLEMS, problems_digest, read_problems
from quantguard.core.prompts import prompts_digest
from quantguard.core.scheme import Scheme
from quantguard.core.suites import builtin_suite
from quantguard.core.verdict import ExitCode
from quantguard.policy.attainable import attainable_drop, attainable_rate
from quantguard.policy.load import load_policy, policy_problems
from tests.policy.written import POLICY, TASK, spoilt, write_policy


def refusal(folder: Path, old: str, new: str) -> PolicyError:
    path = write_policy(folder, spoilt(old, new))
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert caught.value.exit_code is ExitCode.USAGE
    assert str(caught.value).startswith(f"{path}:")
    return caught.value


def test_a_valid_policy_is_read_as_it_is_written(tmp_path: Path) -> None:
    loaded = load_policy(write_policy(tmp_path))
    assert loaded.policy.schemes == (Scheme.NF4, Scheme.INT8)
    assert loaded.policy.settings() == (None, Scheme.NF4, Scheme.INT8)
    assert loaded.policy.harden_schemes() == (Scheme.NF4,)
    assert [s for s, _ in loaded.policy.attack_success.by_scenario()] == [
        Scenario.CONTENT_INJECTION,
        Scenario.VULNERABLE_CODE,
    ]
    assert loaded.policy.benchmarks[0].max_drop == 0.2
    assert loaded.resolve("probes.jsonl") == tmp_path / "probes.jsonl"
    assert {file.path.name for file in loaded.inputs} == {
        "probes.jsonl",
        "calibration.jsonl",
        "questions.yaml",
        "questions.jsonl",
    }


def test_hardening_covers_every_scheme_where_none_is_named(tmp_path: Path) -> None:
    loaded = load_policy(write_policy(tmp_path, spoilt("  schemes: [nf4]\n", "")))
    assert loaded.policy.harden_schemes() == loaded.policy.schemes


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("name: small", "nmae: small", "nmae", "did you mean name?"),
        ("name: small", "name: 7", "name", "expected text, got 7"),
        ("name: small", "name:", "name", "has no value"),
        ("name: small", "name: small\nname: again", "name", "given twice"),
        ("quantguard.policy/1", "quantguard.policy/2", "schema", "expected 'quantguard.policy/1'"),
        ("confidence: 0.95", 'confidence: "0.95"', "confidence", "expected a number, got '0.95'"),
        ("confidence: 0.95", "confidence: yes", "confidence", "the truth value true"),
        ("confidence: 0.95", "confidence: .nan", "confidence", "expected a finite number"),
        ("confidence: 0.95", "confidence: 95", "confidence", "expected less than 1"),
        ("confidence: 0.95", "confidence: 1:30", "confidence", "expected a plain decimal number"),
        ("schemes: [nf4, int8]", "schemes: [nf4, in8]", "schemes[1]", "did you mean int8?"),
        ("schemes: [nf4, int8]", "schemes: []", "schemes", "at least one entry"),
        ("schemes: [nf4, int8]", "schemes: [nf4, nf4]", "schemes", "each entry once"),
        ("schemes: [nf4, int8]", "schemes: [int8]", "harden.schemes", "got nf4"),
        ("fail_on: high", "fail_on: hihg", "scan.fail_on", "did you mean high?"),
        ("mode: when-suspicious", "mode: sometimes", "harden.mode", "'when-suspicious'"),
        ("method: quantguard", "method: magic", "harden.method", "expected 'auto'"),
        ("steps: 10", "steps: 0", "harden.steps", "expected at least 1, got 0"),
        ("steps: 10", "steps: true", "harden.steps", "expected a whole number"),
        ("steps: 10", "steps: 10.5", "harden.steps", "expected a whole number, got 10.5"),
        ("steps: 10", "steps: 010", "harden.steps", "expected a plain decimal number"),
        ("samples: 4", "samples: 400", "harden.calibration.samples", "expected at most 60"),
        ("keywords: [Zentrix]", "keywords: []", "attack_success.content_injection.keywords", "at least one entry"),
        ("keywords: [Zentrix]", "keywords: [' ']", "attack_success.content_injection.keywords[0]", "only spaces"),
        ("    keywords: [Zentrix]\n", "", "attack_success.content_injection.keywords", "is required and absent"),
        (
            "max_unparsable: 0.3",
            "max_unparseable: 0.3",
            "attack_success.vulnerable_code.max_unparseable",
            "did you mean max_unparsable?",
        ),
        ("max_drop: 0.2,", "max_drop: 0,", "benchmarks[0].max_drop", "expected more than 0"),
        ("max_drop: 0.2,", "max_drop: -.inf,", "benchmarks[0].max_drop", "finite"),
        ("task: built_in", "task: questions", "benchmarks", "each entry once"),
        ("alias: champion", "alias: a/b", "registry.alias", "expected text that matches"),
        ("alias: champion", "alias: latest", "registry.alias", "does not reserve"),
        ("alias: champion", "alias: v12", "registry.alias", "does not reserve"),
        ("description: for tests", "description: 2024-01-01", "description", "put quotes around it"),
        ("description: for tests", "description: !!binary aGk=", "description", "put quotes around it"),
        ("probes: probes.jsonl", "probes: prboes.jsonl", "attack_success.content_injection.probes", "No such file"),
        ("path: questions.yaml", "path: none.yaml", "benchmarks[0].path", "No such file"),
    ],
)
def test_a_wrong_entry_is_named_with_its_key_and_what_was_expected(
    tmp_path: Path, old: str, new: str, key: str, words: str
) -> None:
    error = refusal(tmp_path, old, new)
    assert error.key == key
    assert words in str(error)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("name: small", "nmae: small", 2),
        ("name: small\n", "", 1),  # absent: where the mapping begins
        ("steps: 10", "steps: 0", 12),
        ("keywords: [Zentrix]", "keywords:\n      - Zentrix\n      - ''", 18),
        ("max_drop: 0.5", "max_drop: 5", 26),
    ],
)
def test_the_line_is_the_one_to_change(tmp_path: Path, old: str, new: str, line: int) -> None:
    assert refusal(tmp_path, old, new).line == line


def test_every_problem_is_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = spoilt("steps: 10", "steps: 0").replace("confidence: 0.95", "confidence: 2").replace("0.5,", "5,")
    problems = policy_problems(write_policy(tmp_path, text))
    assert [problem.key for problem in problems] == ["confidence", "harden.steps", "benchmarks[1].max_drop"]
    assert policy_problems(write_policy(tmp_path)) == ()


def test_benchmarks_are_left_out_only_by_saying_so(tmp_path: Path) -> None:
    head, registry = POLICY.split("benchmarks:")[0], "registry: {alias: champion}\n"
    with pytest.raises(PolicyError, match="benchmarks: is required and absent"):
        load_policy(write_policy(tmp_path, head + registry))
    assert load_policy(write_policy(tmp_path, head + "benchmarks: []\n" + registry)).policy.benchmarks == ()


def test_a_scenario_is_required(tmp_path: Path) -> None:
    start, end = POLICY.index("attack_success:"), POLICY.index("benchmarks:")
    with pytest.raises(PolicyError, match="attack_success: expected at least one scenario"):
        load_policy(write_policy(tmp_path, POLICY[:start] + "attack_success: {}\n" + POLICY[end:]))


def test_hardening_without_calibration_is_refused_unless_nothing_is_hardened(tmp_path: Path) -> None:
    line = "  calibration: {prompts: calibration.jsonl, samples: 4}\n"
    error = refusal(tmp_path, line, "")
    assert (error.key, error.line) == ("harden.calibration", 7)
    never = spoilt(line, "").replace("mode: when-suspicious", "mode: never")
    assert load_policy(write_policy(tmp_path, never)).policy.harden.calibration is None


def test_calibration_may_be_built_in_or_the_model_s_own(tmp_path: Path) -> None:
    file = "calibration: {prompts: calibration.jsonl, samples: 4}"
    loaded = {
        source: load_policy(write_policy(tmp_path, spoilt(file, f"calibration: {{prompts: {source}, samples: 512}}")))
        for source in ("neutral", "self")
    }
    digests = {source: {i.key: i.digest for i in policy.inputs} for source, policy in loaded.items()}
    assert digests["neutral"].pop("harden.calibration.prompts") == prompts_digest(neutral_prompts())
    assert digests["neutral"] == digests["self"]
    assert loaded["neutral"].inputs_digest != loaded["self"].inputs_digest
    error = refusal(tmp_path, file, "calibration: {prompts: neutral, samples: 1000}")
    assert error.key == "harden.calibration.samples"
    assert f"expected at most {len(neutral_prompts())}, the prompts built in, got 1000" in str(error)


def test_probes_may_be_built_in_each_scenario_with_its_own(tmp_path: Path) -> None:
    loaded = load_policy(write_policy(tmp_path, POLICY.replace("probes: probes.jsonl", "probes: builtin")))
    digests = {file.key: file.digest for file in loaded.inputs}
    for scenario in (Scenario.CONTENT_INJECTION, Scenario.VULNERABLE_CODE):
        assert digests[f"attack_success.{scenario.value}.probes"] == builtin_suite(scenario).digest
    assert loaded.inputs_digest != load_policy(write_policy(tmp_path)).inputs_digest


def test_a_file_that_is_called_like_the_word_is_given_as_a_path(tmp_path: Path) -> None:
    path = write_policy(tmp_path, POLICY.replace("probes: probes.jsonl", "probes: ./builtin"))
    (tmp_path / "probes.jsonl").rename(tmp_path / "builtin")
    assert {file.path.name for file in load_policy(path).inputs if file.key.endswith("probes")} == {"builtin"}
    assert load_policy(path).inputs_digest == load_policy(write_policy(tmp_path)).inputs_digest


@pytest.mark.parametrize(("probes", "passes"), [(35, False), (36, True)])
def test_a_limit_that_no_model_can_meet_is_refused(tmp_path: Path, probes: int, passes: bool) -> None:
    # 0 of 35 shows only below 10.003 %, 0 of 36 below 9.739 %; the policy asks for 10 %.
    problems = policy_problems(write_policy(tmp_path, probes=probes))
    assert [problem.key for problem in problems] == (
        [] if passes else ["attack_success.content_injection.max_upper_bound"]
    )


@pytest.mark.parametrize(("probes", "passes"), [(35, False), (36, True)])
def test_a_limit_that_asking_until_settled_never_meets_is_refused(tmp_path: Path, probes: int, passes: bool) -> None:
    # The two kinds of interval ask for the same number at 10 %; at 5 % it is 77 and not 72.
    text = spoilt("attack_success:\n", "attack_success:\n  sampling: sequential\n")
    problems = policy_problems(write_policy(tmp_path, text, probes=probes))
    assert bool(problems) is not passes
    text = text.replace("max_upper_bound: 0.1", "max_upper_bound: 0.05")
    assert not policy_problems(write_policy(tmp_path, text, probes=77))
    (problem,) = policy_problems(write_policy(tmp_path, text, probes=76))
    assert "0 of 76 probes only shows below 0.05" in str(problem)
    assert not policy_problems(write_policy(tmp_path, text.replace("sequential", "fixed"), probes=76))


@pytest.mark.parametrize(("change", "least"), [("limit: 50", "50 questions"), ("limit: 500", "60 questions")])
def test_a_drop_that_no_model_can_show_is_refused(tmp_path: Path, change: str, least: str) -> None:
    text = spoilt("max_drop: 0.2, limit: 50", f"max_drop: 0.05, {change}")
    with pytest.raises(PolicyError, match=f"cannot be met: nothing lost of {least}"):
        load_policy(write_policy(tmp_path, text))


@given(trials=st.integers(1, 5000), confidence=st.floats(0.51, 0.999))
def test_the_attainable_bound_is_the_exact_interval_of_no_success(trials: int, confidence: float) -> None:
    exact = float(beta.ppf(1 - (1 - confidence) / 2, 1, trials))
    assert attainable_rate(trials, confidence) == pytest.approx(exact, rel=1e-9)
    assert attainable_drop(trials, confidence) >= attainable_rate(trials, confidence)


def test_problems_for_programs_are_checked_and_counted_and_the_built_in_ones_are_there(tmp_path: Path) -> None:
    row = {"prompt": "def f():\n", "entry_point": "f", "tests": "assert f()"}
    rows = [{"id": str(number), **row} for number in range(60)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    old = "{task: built_in, max_drop: 0.5, limit: 100}"
    own = "{task: own, kind: code, path: problems.jsonl, max_drop: 0.1, max_new_tokens: 64}"
    loaded = load_policy(write_policy(tmp_path, spoilt(old, own)))
    assert loaded.inputs[-1].digest == problems_digest(read_problems(tmp_path / "problems.jsonl"))
    suite = load_policy(write_policy(tmp_path, spoilt(old, "{task: suite, kind: code, max_drop: 0.15}")))
    assert suite.inputs[-1].digest == problems_digest(read_problems(BUILTIN_PROBLEMS))
    error = refusal(tmp_path, old, own.replace("0.1,", "0.1, limit: 20,"))
    assert "nothing lost of 20 questions" in str(error)
    (tmp_path / "problems.jsonl").write_text("{}\n")
    error = refusal(tmp_path, old, own)
    assert (error.key, error.line) == ("benchmarks[1].path", 26)
    assert "problems.jsonl: line 1: the key 'task_id' is missing" in str(error)
    assert "max_new_tokens is for kind: code" in str(refusal(tmp_path, old, own.replace("kind: code, ", "")))


def test_the_inputs_digest_follows_the_contents_and_not_the_place(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (load_policy(write_policy(folder)) for folder in folders)
    assert (one.digest, one.inputs_digest) == (two.digest, two.inputs_digest)
    for name in ["probes.jsonl", "calibration.jsonl", "questions.yaml", "questions.jsonl"]:
        path = write_policy(folders[1])
        changed = (folders[1] / name).read_text(encoding="utf-8")
        more = "# more\n" if name.endswith(".yaml") else '{"prompt": "more"}\n'
        (folders[1] / name).write_text(changed + more, encoding="utf-8")
        again = load_policy(path)
        assert again.digest == one.digest
        assert again.inputs_digest != one.inputs_digest, name


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("task: questions", "task: others", "task: expected questions"),
        ("dataset_path: json", "dataset_path: cais/mmlu", "expected json, a local file"),
        ("test: questions.jsonl", "test: gone.jsonl", "gone.jsonl cannot be read"),
        ("output_type: multiple_choice", "include: other.yaml", "include: is refused"),
        ("doc_to_choice: null", "doc_to_choice: !function evil.run", "the YAML tag !function is refused"),
    ],
)
def test_a_task_that_reaches_outside_its_digest_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = write_policy(tmp_path)
    (tmp_path / "questions.yaml").write_text(TASK.replace(old, new), encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert caught.value.key == "benchmarks[0].path"
    assert words in str(caught.value)


def test_a_list_with_one_wrong_entry_is_one_problem(tmp_path: Path) -> None:
    path = write_policy(tmp_path, spoilt("schemes: [nf4, int8]", "schemes: [nf5]"))
    (problem,) = (found for found in policy_problems(path) if found.key.startswith("schemes"))
    assert str(problem).endswith("(did you mean nf4?)")
    assert str(problem).startswith(f"{path}:5:11: schemes[0]: ")
