"""Problems in three shapes, the programs in answers to them, and the built-in suite with its reference solutions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantguard.core.errors import ProblemsError
from quantguard.core.problems import BUILTIN_PROBLEMS, CodeProblem, problems_digest, read_problems
from quantguard.execute.runner import Limits, Problem, Verdict, nothing_else, run_problem
from quantguard.verify.programs import program

OWN = {"id": "a", "prompt": "def add(a, b):\n", "entry_point": "add", "tests": "assert add(1, 2) == 3\n"}
HUMAN = {
    "task_id": "HumanEval/0",
    "prompt": "import math\n\ndef half(x):\n    return x / 2\n\ndef add(a: float, b: float):\n    ''' Add. '''\n",
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "\n\nMETADATA = {}\n\ndef check(candidate):\n    assert half(candidate(1, 3)) == math.sqrt(4)\n",
}
MBPP = {
    "task_id": 2,
    "text": "Write a function to add.",
    "code": "def helper():\n    pass\ndef add(a, b):\n    return a + b",
    "test_list": ["assert set(add((1,), (2,))) == {1, 2}", "assert add(1, 2) == 3"],
    "test_setup_code": "",
    "challenge_test_list": [],
}


def read(tmp_path: Path, *rows: Any) -> tuple[CodeProblem, ...]:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return read_problems(path)


def verdict(problem: CodeProblem, answer: str) -> Verdict:
    asked = Problem(program(problem, answer), problem.entry, problem.setup, problem.tests)
    return run_problem(asked, Limits(20, 512), nothing_else)


@pytest.mark.parametrize("shape", [OWN, HUMAN, MBPP], ids=["own", "HumanEval", "MBPP"])
@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("Sure:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", "passed"),
        ("def add(a, b):\n    return a + b\n", "passed"),
        ("```python\ndef add(a, b):\n    return a - b\n```", "failed"),
        ("I cannot write code.", "failed"),
        ("", "failed"),
    ],
)
def test_an_answer_in_its_own_words_is_run(shape: dict[str, Any], answer: str, word: str, tmp_path: Path) -> None:
    assert verdict(read(tmp_path, shape)[0], answer).word == word


@pytest.mark.parametrize("shape", [OWN, HUMAN], ids=["own", "HumanEval"])
def test_a_completion_is_run_up_to_where_it_leaves_the_function(shape: dict[str, Any], tmp_path: Path) -> None:
    (problem,) = read(tmp_path, shape)
    assert verdict(problem, "    return a + b\n\nprint(input())\nx = (") == Verdict("passed")
    assert verdict(problem, "    return a + b") == Verdict("passed")
    assert verdict(problem, "    return a\n").word == "failed"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("[]", "line 2: not an object"),
        ("{", "line 2: "),
        ({**OWN, "id": "b", "entry_point": "a b"}, "is no name of a function"),
        ({**OWN, "id": "b", "tests": "assert ("}, "the tests are no Python"),
        ({**OWN, "id": "b", "prompt": ""}, "prompt must be a text"),
        ({key: value for key, value in OWN.items() if key != "tests"}, "the key 'test' is missing"),
        (OWN, "'a' is there twice"),
        ({**MBPP, "test_list": ["assert other(1)"]}, "no test calls a function of its code"),
        ({**MBPP, "test_list": 7}, "line 2: "),
        ("[" * 100_000, "line 2: "),
    ],
)
def test_a_bad_row_is_told_with_its_line(row: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match=said):
        read(tmp_path, OWN, row)


def test_no_problems_are_told_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match="holds 0 problems"):
        read(tmp_path, "")
    with pytest.raises(ProblemsError, match="No such file"):
        read_problems(tmp_path / "none.jsonl")


SOLUTIONS = {
    row["id"]: row["solution"]
    for row in map(json.loads, Path(__file__).with_name("solutions.jsonl").read_text().splitlines())
}
SUITE = read_problems(BUILTIN_PROBLEMS)


@pytest.mark.parametrize("problem", SUITE, ids=lambda problem: problem.name)
def test_each_built_in_problem_is_passed_by_its_solution_and_not_by_nothing(problem: CodeProblem) -> None:
    assert verdict(problem, SOLUTIONS[problem.name]) == Verdict("passed")
    assert verdict(problem, "    return None\n").word == "failed"


def test_the_built_in_suite_is_the_one_that_evidence_names() -> None:
    assert len(SUITE) == len(SOLUTIONS) == 40
    assert problems_digest(SUITE).startswith("sha256:")
    assert len({problem.prompt for problem in SUITE}) == 40
