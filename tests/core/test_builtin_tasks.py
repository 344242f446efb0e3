"""The built-in questions: well formed, with nothing in their form that gives the answer away, and right."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from collections import Counter
from typing import Any

import pytest

from quantguard.core.builtin_tasks import TASK_NAMES, TASKS_FOLDER, TaskSuite, builtin_task
from quantguard.core.suites import BUILTIN

ALL = builtin_task(BUILTIN)
DIGESTS = {  # of version 1
    "everyday": "sha256:0b36c2e610277252c1779342cbd52c3b3b5096bd32590509e531b1470f1c3cca",
    "completion": "sha256:9a9ed3d4aefa5b022e6759768f551a568a208ebe9b3d44deb607b4773b36842a",
    "arithmetic": "sha256:24a22f8a7c99b35608dc5d42b679dd952fbf8b462c9467899bc91668ef052e6e",
    "reading": "sha256:b943646cebfb1c9585a231131b9cd2d99cd5e95e7817ad655267a7a7fe7cd273",
    "python": "sha256:4fb39a7c74fc58c7c13dbde0135d4210a668fa6062a96092b5bfe06c23ac0648",
}
COUNTS = {"everyday": 200, "completion": 60, "arithmetic": 60, "reading": 48, "python": 60}
each_suite = pytest.mark.parametrize("suite", ALL, ids=lambda suite: suite.name)


def rows(suite: TaskSuite) -> list[dict[str, Any]]:
    return [json.loads(line) for line in suite.path.read_text(encoding="utf-8").splitlines()]


def longest_is_right(suite: TaskSuite) -> float:
    """How often the longest choice is the right one, those of one length sharing it: 0.25 says nothing."""
    hits = 0.0
    for row in rows(suite):
        lengths = [len(choice) for choice in row["choices"]]
        longest = [place for place, length in enumerate(lengths) if length == max(lengths)]
        hits += (row["answer"] in longest) / len(longest)
    return hits / len(rows(suite))


def test_a_policy_names_all_suites_or_one() -> None:
    assert [suite.name for suite in ALL] == list(COUNTS)
    assert (BUILTIN, *(f"{BUILTIN}/{name}" for name in COUNTS)) == TASK_NAMES
    for name in COUNTS:
        assert [suite.name for suite in builtin_task(f"{BUILTIN}/{name}")] == [name]
    assert builtin_task("everyday") == builtin_task("builtin/none") == ()
    assert 300 <= sum(suite.questions for suite in ALL) <= 600
    assert sum(suite.path.stat().st_size for suite in ALL) < 60_000
    assert {path.stem for path in TASKS_FOLDER.glob("*.jsonl")} == set(COUNTS)


@each_suite
def test_other_rows_or_another_prompt_are_another_version(suite: TaskSuite) -> None:
    assert suite.suite == f"builtin/{suite.name}/1"
    assert suite.digest == DIGESTS[suite.name], "raise the version, then pin the new digest"
    assert suite.questions == len(rows(suite)) == COUNTS[suite.name], "the README and docs/usefulness.md say how many"


@each_suite
def test_a_question_has_four_different_choices_and_says_nothing_by_its_form(suite: TaskSuite) -> None:
    read = rows(suite)
    assert all(set(row) == {"question", "choices", "answer"} for row in read)
    for row in read:
        choices = row["choices"]
        assert len({choice.lower() for choice in choices} if suite.name != "python" else set(choices)) == 4, row
        assert all(choice == choice.strip() != "" for choice in choices), row
        assert row["answer"] in range(4)
        assert row["question"] == row["question"].strip()
        assert re.search(r"[{}]%|%[{}]|\{\{", row["question"]) is None, "no template"
    places = Counter(row["answer"] for row in read)
    assert set(places.values()) == {len(read) // 4}
    assert longest_is_right(suite) <= 0.35


def test_no_question_is_asked_twice_in_any_suite() -> None:
    asked = [row["question"].lower() for suite in ALL for row in rows(suite)]
    assert len(set(asked)) == len(asked)


def test_the_sums_are_right() -> None:
    signs = {"plus": "+", "minus": "-", "times": "*", "divided by": "//"}
    sums = 0
    for row in rows(*builtin_task("builtin/arithmetic")):
        match = re.fullmatch(r"What is (\d+) (plus|minus|times|divided by) (\d+)\?", row["question"])
        if match is not None:
            sums += 1
            one, sign, other = int(match[1]), signs[match[2]], int(match[3])
            right = {"+": one + other, "-": one - other, "*": one * other, "//": one // other}[sign]
            assert row["choices"][row["answer"]] == str(right)
    assert sums == 32


def test_a_snippet_prints_its_right_choice() -> None:
    for row in rows(*builtin_task("builtin/python")):
        code = row["question"].partition("\n")[2]
        assert not [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(code, "row", "exec"), {})  # noqa: S102  our own rows, which import nothing
        assert said.getvalue().strip() == row["choices"][row["answer"]]


def test_each_text_has_three_questions() -> None:
    texts = Counter(row["question"].partition("\nQuestion: ")[0] for row in rows(*builtin_task("builtin/reading")))
    assert set(texts.values()) == {3}
    assert all(len(text) > 60 for text in texts)
