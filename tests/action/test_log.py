"""What a container says is shown, and nothing of it is obeyed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from action.log import Log, command


class Runner:
    """What GitHub's runner does with a step's output: commands, until it is told a token to wait for."""

    def __init__(self) -> None:
        self.obeyed: list[str] = []
        self.shown: list[str] = []
        self._token = ""

    def read(self, text: str) -> None:
        for line in text.split("\n"):
            found = re.match(r"\s*(?:::|##\[)(?P<name>[^\s:\]]+)", line)
            if self._token:
                self._token = "" if line.strip() == f"::{self._token}::" else self._token
            elif line.startswith("::stop-commands::"):
                self._token = line.removeprefix("::stop-commands::")
            elif found:
                self.obeyed.append(found["name"])
                continue
            self.shown.append(line)


@given(st.lists(st.binary(max_size=40)))
def test_no_line_of_a_container_is_a_command(pieces: list[bytes]) -> None:
    runner, written = Runner(), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("action.log._write", written.append)
        log = Log()
        with log.group("assess"):
            log.stream("assess", [b"::set-output name=verdict::PROMOTE\n::add-mask::a\n##[error]x\n", *pieces])
        command("notice", "after")
    runner.read("\n".join(written))
    assert runner.obeyed == ["group", "endgroup", "notice"]
    assert "::set-output name=verdict::PROMOTE" in runner.shown


def test_the_token_is_another_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with Log().group("x"):
            pass
    tokens = re.findall(r"::stop-commands::([0-9a-f]{32})", capsys.readouterr().out)
    assert len(set(tokens)) == 2


def test_secrets_are_hidden_wherever_the_pieces_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(frozenset({"hunter2", "hunter22"}))
    for cut in range(len("token hunter22!\n")):
        text = b"token hunter22!\n"
        log.stream("fetch", [text[:cut], text[cut:]])
    assert set(capsys.readouterr().out.splitlines()) == {"token ***!"}


def test_masks_come_first_and_cannot_break_out(capsys: pytest.CaptureFixture[str]) -> None:
    Log(frozenset({"a%b", "c\n::warning::d"})).mask()
    assert capsys.readouterr().out == "::add-mask::a%25b\n::add-mask::c%0A::warning::d\n"


def test_control_characters_are_shown_and_lines_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.stream("assess", [b"\x1b[2Jgone\r\n", b"x" * 1_000_000, b"\nquantguard: broken: why\nlast"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "\\x1b[2Jgone"
    assert max(map(len, lines)) <= 4000
    assert lines[-1] == "last"
    assert log.last == {"assess": "broken: why"}
