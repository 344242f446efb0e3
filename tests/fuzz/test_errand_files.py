"""What another room leaves, changed at random: it fits what was asked, or nothing is concluded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantguard.core.errand import Answered, Errand, ErrandKind, ErrandOutcome, Reply
from quantguard.core.errors import JudgeError
from quantguard.evidence.errands import Errands
from quantguard.judge.openai import Address, OpenAIJudge
from tests.fuzz.chance import change_bytes, change_json, encoded, parsed
from tests.fuzz.targets import chance_of

ERRAND = Errand(ErrandKind.JUDGE, "over_refusal nf4", (("model", "m"),), (("one",), ("two",), ("three",)))
REPLIES = (Reply("yes"), Reply("no", "because"), Reply("unreadable"))
INPUTS = 800


@pytest.fixture
def errands(tmp_path: Path) -> Errands:
    made = Errands(tmp_path / "errands")
    made.leave(ERRAND, ErrandOutcome(made.ask(ERRAND), REPLIES))
    return made


@pytest.mark.parametrize("folder", ["asked", "done"])
def test_a_changed_file_fits_or_settles_nothing(folder: str, errands: Errands) -> None:
    (path,) = (errands.root / folder).glob("judge-*.json")
    honest = path.read_bytes()
    digest = "sha256:" + path.stem.removeprefix("judge-")
    said: Counter[str] = Counter()

    def read() -> str:
        found = errands.answered(digest)
        if not isinstance(found, Answered):
            assert found.errand == digest
            return "nothing"
        assert found.errand == ERRAND
        assert len(found.replies) == 3
        assert {reply.word for reply in found.replies} <= ErrandKind.JUDGE.words
        return "as it was" if found.replies == REPLIES else "otherwise"

    for number in range(INPUTS):
        chance = chance_of(3, folder, number)
        changed = encoded(chance, change_json(chance, parsed(honest))) if number % 2 else change_bytes(chance, honest)
        path.write_bytes(changed)
        said[read()] += 1
    assert said["nothing"] > INPUTS / 2
    assert said["as it was"]  # other spaces, say: the front door alone is not what is fuzzed
    assert folder == "done" or not said["otherwise"]  # what was asked is bound by its digest, replies are not


@given(chance=st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_server_says_is_a_word_or_a_typed_error(chance: Random) -> None:
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "yes"}}]}).encode()
    changed = encoded(chance, change_json(chance, parsed(body))) if chance.randrange(2) else change_bytes(chance, body)
    asked = OpenAIJudge(Address("http://127.0.0.1:1/v1", "m"))
    text = changed.decode("utf-8", errors="replace")
    try:
        said = asked._read(200, text)
    except JudgeError as error:
        said = str(error)
    assert said in ErrandKind.JUDGE.words or (said.startswith("the judge m at http") and said.isprintable())
