"""Workflow commands, read back with the runner's rules (actions/runner, ActionCommand.TryParseV2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantguard.core.remark import Level, Place, Remark
from quantguard.report.annotations import MOST, render_annotations
from quantguard.report.text import visible
from tests.report.made import NASTY, PLACE

ERROR = Remark("scan.fail_on", Level.ERROR, "weights pile up", PLACE)
COMMANDS = ["::error::x", "a\n::stop-commands::t", "\r::add-mask::x", "%0A::set-output name=x::y", "##[error]x", NASTY]
WORDS = st.sampled_from(["::", "error", "%0A", "%25", "%", ",", "=", "\n", "\r\n", ":", "##[", "]", " ", "\u2028", "ü"])
TEXT = st.text(max_size=30) | st.lists(WORDS, max_size=12).map("".join)
NUMBER = st.integers(1, 999)


@dataclass
class Command:
    name: str
    properties: dict[str, str]
    data: str


def unescape(text: str, pairs: dict[str, str]) -> str:
    return re.sub("|".join(pairs), lambda match: pairs[match[0]], text)


DATA = {"%0D": "\r", "%0A": "\n", "%25": "%"}
PROPERTY = {**DATA, "%3A": ":", "%2C": ","}


def runner_reads(text: str) -> list[Command]:
    """Every line of a step's output is looked at; one that starts with two colons is a command."""
    commands = []
    for raw in re.split("\r\n|\r|\n", text.removesuffix("\n")):
        line = raw.lstrip()
        assert line.startswith("::"), f"not a command: {line!r}"
        end = line.index("::", 2)
        name, _, rest = line[2:end].partition(" ")
        pairs = [pair.split("=", 1) for pair in rest.strip().split(",") if pair]
        properties = {key: unescape(value, PROPERTY) for key, value in pairs}
        commands.append(Command(name, properties, unescape(line[end + 2 :], DATA)))
    return commands


def test_a_remark_is_one_command_with_its_place() -> None:
    assert render_annotations([ERROR]) == (
        "::error file=policies/canary.yaml,line=20,endLine=20,col=22,endColumn=26,title=scan.fail_on::weights pile up\n"
    )


def test_nothing_to_tell_is_an_empty_text() -> None:
    assert render_annotations([]) == ""


@pytest.mark.parametrize("text", COMMANDS)
def test_no_text_starts_a_command_of_its_own(text: str) -> None:
    remark = Remark(text, Level.ERROR, text, Place(text, 1, 1, 1, 2), text)
    (command,) = runner_reads(render_annotations([remark]))
    assert command.name == "error"
    assert command.data == visible(text, 2000)
    assert command.properties["title"] == visible(text, 200)
    assert command.properties["file"] == visible(text, 1000)


@given(
    st.lists(
        st.builds(Remark, TEXT, st.sampled_from(Level), TEXT, st.builds(Place, TEXT, NUMBER, NUMBER, NUMBER, NUMBER)),
        max_size=12,
    )
)
def test_the_runner_reads_back_what_was_meant(remarks: list[Remark]) -> None:
    text = render_annotations(remarks)
    commands = runner_reads(text) if text else []
    for level in Level:
        told = [(c.properties["title"].strip(), c.data) for c in commands if c.name == level.value]
        meant = [(visible(r.rule).strip(), visible(r.message)) for r in remarks if r.level is level]
        assert told == meant if len(meant) <= MOST else told[:-1] == meant[: MOST - 1]
    keys = {"file", "line", "col", "endLine", "endColumn", "title"}
    assert all(set(command.properties) <= keys for command in commands)


@pytest.mark.parametrize(("level", "word"), [(Level.ERROR, "errors"), (Level.WARNING, "warnings")])
def test_the_tenth_of_a_kind_counts_the_rest(level: Level, word: str) -> None:
    remarks = [replace(ERROR, level=level, message=str(number)) for number in range(25)]
    commands = runner_reads(render_annotations([*remarks, ERROR], rest="job.md"))
    ours = [command for command in commands if command.name == level.value]
    assert len(ours) == MOST
    assert [command.data for command in ours[:-1]][:9] == [str(number) for number in range(9)]
    more = 25 - 9 + (level is Level.ERROR)
    assert ours[-1].data == f"and {more} more {word}, all in job.md"


def test_ten_of_each_kind_are_all_shown_errors_first() -> None:
    remarks = [replace(ERROR, level=level) for level in (Level.NOTICE, Level.WARNING, Level.ERROR) for _ in range(10)]
    names = [command.name for command in runner_reads(render_annotations(remarks))]
    assert names == ["error"] * 10 + ["warning"] * 10 + ["notice"] * 10


def test_columns_are_left_out_over_several_lines() -> None:
    (command,) = runner_reads(render_annotations([replace(ERROR, place=replace(PLACE, end_line=22))]))
    assert command.properties == {
        "file": "policies/canary.yaml",
        "line": "20",
        "endLine": "22",
        "title": "scan.fail_on",
    }


def test_a_remark_about_no_file_has_no_place() -> None:
    (command,) = runner_reads(render_annotations([replace(ERROR, place=None)]))
    assert set(command.properties) == {"title"}
