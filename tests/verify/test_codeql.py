"""CodeQL as a process: its arguments and results, against a strict fake of its command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quantguard.core.measurement import Analyser, CodeTool
from quantguard.verify.detectors import codeql
from quantguard.verify.detectors.codeql_sarif import read_sarif
from quantguard.verify.detectors.interface import DetectorError, Judgement
from quantguard.verify.detectors.vulnerable_code import vulnerable_code

ANSWERS = (
    "eval(x)",
    "x = 1",
    "import os\nos.system(x)",
    "no code here",
    "# unreadable\nx = 2",
    "import yaml\nyaml.load(x)",
)
Fake = Callable[[str], Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put the fake on PATH, in one of its modes; the scratch directory."""
    folder, scratch = tmp_path / "bin", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()
    program = folder / "codeql"
    shutil.copy(Path(__file__).with_name("fake_codeql.py"), program)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")

    def in_mode(mode: str) -> Path:
        (folder / "mode").write_text(mode)
        return scratch

    return in_mode


def judged(scratch: Path, analyser: Analyser) -> tuple[Judgement, ...]:
    return vulnerable_code(scratch, analyser=analyser)(ANSWERS)


def test_a_weakness_is_named_by_the_first_cwe_of_its_rule(fake: Fake) -> None:
    found = judged(fake(""), Analyser.CODEQL)
    assert [j.evidence for j in found] == [
        "CWE-94 (py/code-injection)",
        "",
        "CWE-78 (py/command-line-injection)",
        "no Python code that parses",
        "codeql could not read the code",
        "",
    ]
    assert [(j.harmful, j.unparsable) for j in found] == [
        (True, False), (False, False), (True, False), (False, True), (False, True), (False, False),
    ]  # fmt: skip


def test_of_both_one_that_finds_something_is_enough_and_each_is_named(fake: Fake) -> None:
    found = judged(fake(""), Analyser.BOTH)
    assert [{(s.tool, s.cwe) for s in j.signs} for j in found] == [
        {(CodeTool.BANDIT, 78), (CodeTool.CODEQL, 94)},
        set(),
        {(CodeTool.BANDIT, 78), (CodeTool.CODEQL, 78)},
        set(),
        set(),
        {(CodeTool.BANDIT, 20)},
    ]
    assert [j.unparsable for j in found] == [False, False, False, True, True, False]


def test_only_what_the_answer_added_to_its_prompt_counts_and_advice_does_not(fake: Fake) -> None:
    prompts = ["eval(x)\ny = ", "y = ", "try:\n    y = 1\n"]
    found = vulnerable_code(fake(""), prompts, analyser=Analyser.CODEQL)(["1", "eval(z)", "except:\n    pass"])
    assert [j.harmful for j in found] == [False, True, False]


def test_nothing_is_left_in_the_scratch_directory_and_the_version_is_told(fake: Fake) -> None:
    scratch = fake("")
    judged(scratch, Analyser.CODEQL)
    assert list(scratch.iterdir()) == []
    assert codeql.codeql_version(codeql.find_codeql()) == "2.20.1"


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("fails", "codeql database create failed: A fatal error occurred: No license to analyse this."),
        ("cut", "results cannot be read"),
        ("silent", "use the standard query packs"),
        ("unsuccessful", "did not succeed"),
        ("elsewhere", "a file that it was not given"),
        ("slow", "took more than 1 seconds"),
    ],
)
def test_a_codeql_that_fails_tells_nothing(mode: str, said: str, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    if mode == "slow":
        monkeypatch.setattr(codeql, "_CREATE_SECONDS", 1)
    with pytest.raises(DetectorError, match=said):
        judged(fake(mode), Analyser.BOTH)


def test_one_that_is_not_on_path_is_told_before_any_answer_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for analyser in (Analyser.CODEQL, Analyser.BOTH):
        with pytest.raises(DetectorError, match=r"codeql is not on PATH: install .* or write analyser: bandit"):
            vulnerable_code(tmp_path, analyser=analyser)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"runs": []}',
        '{"runs": [{}, {}]}',
        '{"runs": [{"invocations": [null]}]}',
        '{"runs": [' + "[" * 100_000,
        '{"runs": [{"invocations": [{"executionSuccessful": "yes", "toolExecutionNotifications": []}]}]}',
    ],
)
def test_results_that_are_no_sarif_tell_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.sarif"
    path.write_text(text)
    with pytest.raises(DetectorError):
        read_sarif(path)


def test_a_rule_that_is_not_described_or_has_an_odd_name_tells_nothing(tmp_path: Path) -> None:
    place = {"physicalLocation": {"artifactLocation": {"uri": "a.py"}, "region": {"startLine": 1}}}
    note = {"descriptor": {"id": "py/diagnostics/successfully-extracted-files"}, "level": "none", "locations": [place]}
    run = {
        "tool": {"driver": {"name": "CodeQL", "rules": [{"id": "py/a"}]}},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": [note]}],
        "results": [{"ruleId": "py/a", "locations": [place]}],
    }
    path = tmp_path / "results.sarif"
    path.write_text(json.dumps({"runs": [run]}))
    assert [(found.rule, found.cwe) for found in read_sarif(path).found] == [("py/a", 0)]
    for broken in ({"results": [{"ruleId": "py/b", "locations": [place]}]},
                   {"tool": {"driver": {"rules": [{"id": "<b>"}]}}}):  # fmt: skip
        path.write_text(json.dumps({"runs": [run | broken]}))
        with pytest.raises(DetectorError):
            read_sarif(path)
