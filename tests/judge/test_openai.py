"""The HTTP judge against a server that makes every trouble a real one makes, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from quantguard.core.errors import JudgeDeniedError, JudgeError, JudgeReplyError, JudgeUnreachableError
from quantguard.core.judging import NO, SYSTEM, UNREADABLE, YES, read_reply, user_message
from quantguard.core.labelled import MISLEADING, labelled_answers
from quantguard.judge.fake import FakeJudge, Mode
from quantguard.judge.openai import Address, OpenAIJudge, Patience

REFUSAL = next(row.answer for row in labelled_answers() if row.refuses)
ANSWER = next(row.answer for row in labelled_answers() if not row.refuses)
QUICK = Patience(tries=3, first_wait=0.01, connect=2, read=1)


@contextmanager
def judging(address: Address, patience: Patience = QUICK) -> Iterator[OpenAIJudge]:
    judge = OpenAIJudge(address, patience)
    try:
        yield judge
    finally:
        judge.close()


def said(mode: Mode, answer: str = REFUSAL, key: str = "") -> tuple[str, FakeJudge]:
    with FakeJudge(mode, key=key) as fake, judging(Address(fake.endpoint, "made-up", key)) as judge:
        return judge(answer), fake


def failure(mode: Mode, key: str = "") -> JudgeError:
    with FakeJudge(mode) as fake, judging(Address(fake.endpoint, "made-up", key)) as judge:
        with pytest.raises(JudgeError) as raised:
            judge(REFUSAL)
        assert f"{fake.endpoint}/chat/completions" in str(raised.value)
        assert raised.value.remedy
        return raised.value


def test_it_asks_as_the_api_wants_it_and_tells_the_two_apart() -> None:
    word, fake = said(Mode.HONEST, key="5ecret")
    assert word == YES
    ((path, brought, body),) = fake.asked
    assert (path, brought) == ("/v1/chat/completions", "Bearer 5ecret")
    assert (body["model"], body["temperature"]) == ("made-up", 0)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"] == SYSTEM
    assert said(Mode.HONEST, ANSWER)[0] == NO


@pytest.mark.parametrize(
    ("mode", "kind", "says"),
    [
        (Mode.HANGS_UP, JudgeUnreachableError, "no answer"),
        (Mode.MALFORMED, JudgeReplyError, "not a completion"),
        (Mode.HTML, JudgeReplyError, "Sign in"),
        (Mode.HUGE, JudgeReplyError, "more than 1048576 bytes"),
        (Mode.REDIRECTS, JudgeReplyError, "redirects to 'http://192.0.2.1/"),
        (Mode.ABSENT, JudgeReplyError, "The model does not exist"),
        (Mode.DENIES, JudgeDeniedError, "401"),
    ],
)
def test_each_failure_is_of_a_kind_and_names_the_address_and_what_to_do(
    mode: Mode, kind: type[JudgeError], says: str
) -> None:
    error = failure(mode)
    assert type(error) is kind
    assert says in str(error)


def test_no_error_repeats_the_key_even_where_the_server_does() -> None:
    assert "5ecret" not in str(failure(Mode.DENIES, key="5ecret"))
    assert "5ecret" not in repr(Address("http://127.0.0.1", "m", "5ecret"))


def test_a_busy_server_is_asked_again_and_a_broken_one_so_often_and_no_more() -> None:
    word, fake = said(Mode.BUSY)
    assert (word, len(fake.asked)) == (YES, 2)
    with FakeJudge(Mode.HANGS_UP) as fake, judging(Address(fake.endpoint, "m")) as judge:
        with pytest.raises(JudgeUnreachableError):
            judge(REFUSAL)
        assert len(fake.asked) == QUICK.tries


def test_who_does_not_answer_in_time_is_not_waited_for() -> None:
    with (
        FakeJudge(seconds=5) as fake,
        judging(Address(fake.endpoint, "m"), Patience(tries=2, first_wait=0, read=0.1)) as judge,
    ):
        started = monotonic()
        with pytest.raises(JudgeUnreachableError, match="no answer"):
            judge(REFUSAL)
        assert monotonic() - started < 4


def test_nobody_there_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        judging(Address(f"http://127.0.0.1:{port}/v1", "m")) as judge,
        pytest.raises(JudgeUnreachableError, match="refused"),
    ):
        judge(REFUSAL)


def test_a_server_without_tls_is_told_as_such() -> None:
    with FakeJudge() as fake:
        address = Address(fake.endpoint.replace("http:", "https:"), "m")
        with judging(address) as judge, pytest.raises(JudgeUnreachableError, match="no TLS"):
            judge(REFUSAL)


@pytest.mark.parametrize("host", ["a..b", "a" * 300, ".x", "\u00fc..x", "localhost:0"])
def test_a_host_that_cannot_be_is_told_as_such(host: str) -> None:
    with judging(Address(f"http://{host}/v1", "m")) as judge, pytest.raises(JudgeError, match="the judge m at"):
        judge(REFUSAL)


@pytest.mark.parametrize(
    "endpoint",
    ["", "judge", "ftp://h/v1", "http://", "http://user:pw@h/v1", "http://h/v1?key=1", "http://h:x/v1", "http://h/\n"],
)
def test_no_other_address_is_taken(endpoint: str) -> None:
    with pytest.raises(JudgeError, match="address"):
        OpenAIJudge(Address(endpoint, "m"))


def test_the_key_goes_nowhere_in_the_clear_but_to_this_machine() -> None:
    with pytest.raises(JudgeError, match="in the clear"):
        OpenAIJudge(Address("http://judge.example/v1", "m", "5ecret"))
    with pytest.raises(JudgeError, match="no header"):
        OpenAIJudge(Address("https://judge.example/v1", "m", "5ecret\r\nX: y"))
    for endpoint in ("https://judge.example/v1", "http://127.0.0.1:1/v1"):
        OpenAIJudge(Address(endpoint, "m", "5ecret"))


@pytest.mark.parametrize("lure", MISLEADING)
def test_an_answer_cannot_end_itself_or_speak_for_the_judge(lure: str) -> None:
    """What the answer says of itself stays between marks that it cannot know, and is no reply."""
    message = user_message(f"{REFUSAL}\n{lure}")
    mark = message.partition("\n")[0]
    assert message.count(mark) == 2
    assert message.index(lure) < message.rindex(mark)
    word, _ = said(Mode.ECHO, lure)
    assert word == (NO if lure == "no" else UNREADABLE)
    assert said(Mode.GULLIBLE, f"{REFUSAL}\n\n{lure}")[0] == NO  # which is why the judge is tried on such answers


@pytest.mark.parametrize(
    ("reply", "word"),
    [("yes", YES), (" No.\n", NO), ("NO", NO), ("no!", UNREADABLE), ("", UNREADABLE), ("yes and no", UNREADABLE),
     ("not a refusal", UNREADABLE), ("<think>hm</think>no", UNREADABLE), ("nо", UNREADABLE)],
)  # fmt: skip
def test_only_the_bare_word_counts(reply: str, word: str) -> None:
    assert read_reply(reply) == word


def test_a_judge_that_explains_itself_is_unreadable() -> None:
    assert said(Mode.CHATTY)[0] == UNREADABLE
