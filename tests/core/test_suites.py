"""The built-in probes: many, of many kinds, alike to nothing else, and answerable without harm."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from quantguard.core.builtin_tasks import builtin_task
from quantguard.core.calibration import neutral_prompts
from quantguard.core.errors import PromptsError
from quantguard.core.measurement import Scenario
from quantguard.core.prompts import read_prompts
from quantguard.core.suites import BUILTIN, SUITES_FOLDER, builtin_suite, read_probes
from quantguard.policy.load import load_policy
from quantguard.verify.detectors.over_refusal import over_refusal
from quantguard.verify.detectors.vulnerable_code import vulnerable_code

POLICIES = Path(__file__).parents[2] / "policies"
DIGESTS = {  # of version 1
    Scenario.CONTENT_INJECTION: "sha256:2c38bd1949f62116d0d1ade7df371b2026a33ff55909630b2caa6e0346595dbd",
    Scenario.OVER_REFUSAL: "sha256:ffb17d45e5628d4d164843c62e2dce50464aebd21896abe0090ccd2d248520f9",
    Scenario.VULNERABLE_CODE: "sha256:9beebd21bf30ba4db661b4994e456cea9120bc0303ca0c6535ec294e0d258309",
}
COUNTS = {Scenario.CONTENT_INJECTION: 322, Scenario.OVER_REFUSAL: 328, Scenario.VULNERABLE_CODE: 321}


def rows(scenario: Scenario) -> tuple[str, ...]:
    return tuple(prompt.prompt for prompt in builtin_suite(scenario).prompts)


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Words that both have, as a share of all that they have."""
    return len(one & other) / len(one | other)


def asked_elsewhere() -> Iterator[str]:
    """What is calibrated on, and the questions of the tasks."""
    yield from (prompt.prompt for prompt in neutral_prompts())
    yield from (prompt.prompt for prompt in read_prompts(POLICIES / "probes" / "calibration.jsonl"))
    for suite in builtin_task(BUILTIN):
        yield from (json.loads(line)["question"] for line in suite.path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("scenario", Scenario)
def test_other_rows_are_another_version(scenario: Scenario) -> None:
    suite = builtin_suite(scenario)
    assert suite.suite == f"builtin/{scenario.value}/1"
    assert suite.digest == DIGESTS[scenario], "raise the version, then pin the new digest"
    assert len(suite.prompts) == COUNTS[scenario], "the README and docs/probes.md say how many"
    assert all(prompt.answer is None for prompt in suite.prompts)


@pytest.mark.parametrize("scenario", Scenario)
def test_a_suite_is_large_and_of_many_styles_and_lengths(scenario: Scenario) -> None:
    texts = rows(scenario)
    assert len(texts) >= 300
    lengths = sorted(len(text) for text in texts)
    assert lengths[len(texts) // 10] < 75 < lengths[-len(texts) // 10] < 200 < lengths[-1] < 500
    assert len({words(text) for text in texts}) == len(texts)
    openings = Counter(" ".join(text.split()[:3]) for text in texts)
    assert max(openings.values()) < len(texts) / 5
    assert len(openings) > len(texts) / 2
    foreign = [text for text in texts if re.search(r"[àâéèêßäöüñãçąę¿ł\u3040-\u9fff]", text)]
    assert len(foreign) >= 4


def test_the_suites_are_small_on_disk() -> None:
    assert sum(file.stat().st_size for file in SUITES_FOLDER.iterdir()) < 250_000


def test_no_two_probes_are_alike_in_one_suite_or_in_two() -> None:
    texts = [words(text) for scenario in Scenario for text in rows(scenario)]
    assert max(likeness(one, other) for one, other in combinations(texts, 2)) < 0.6


def test_no_probe_is_calibrated_on_or_a_question_of_a_task() -> None:
    texts = [words(text) for scenario in Scenario for text in rows(scenario)]
    others = [words(text) for text in asked_elsewhere()]
    assert len(others) > 900
    assert max(likeness(probe, other) for probe in texts for other in others) < 0.6


@pytest.mark.parametrize("policy", ["strict", "standard", "permissive"])
def test_no_probe_says_what_an_answer_must_not(policy: str) -> None:
    limits = load_policy(POLICIES / f"{policy}.yaml").policy.attack_success.content_injection
    assert limits is not None
    assert limits.probes == "builtin"
    for text in rows(Scenario.CONTENT_INJECTION):
        assert not any(keyword.lower() in text.lower() for keyword in limits.keywords), text


def test_no_probe_about_refusing_is_itself_read_as_a_refusal() -> None:
    """A model that repeats the question has not refused."""
    texts = rows(Scenario.OVER_REFUSAL)
    assert [text for text, j in zip(texts, over_refusal()(texts), strict=True) if j.harmful] == []


def test_about_half_of_the_harmless_requests_sound_alarming() -> None:
    alarming = (
        r"kill|shoot|shot|bomb|attack|murder|poison|drug|explo|steal|crime|dead|death|\bdie|dying|blood|weapon|hack|crash"
        r"|assault|war\b|fight|burn|fire|smok|toxic|virus|gun|knife|cheat|crack|beat|hit\b|strike|punch|destroy|break"
        r"|terminate|execute|strangle|slash|slaughter|butcher|drown|hang|trap|hunt|robber|thief|sneak|secret|spy|blast|blow"
        r"|cut|strip|inject|choke|bite|victim|assassin|plague|toten|tuer|matar|pirate|ghost|vampire|danger|wound|danger"
    )
    share = (
        sum(bool(re.search(alarming, text.lower())) for text in rows(Scenario.OVER_REFUSAL))
        / COUNTS[Scenario.OVER_REFUSAL]
    )
    assert 0.4 < share < 0.65


def test_the_code_that_is_given_to_continue_is_itself_safe(tmp_path: Path) -> None:
    """What the model added is judged, so that nothing bad may be there before; instructions are left out."""
    given = [text for text in rows(Scenario.VULNERABLE_CODE) if "\n" in text]
    assert len(given) > 90
    unread = []
    for text in given:
        code = text if text.startswith(("import", "from", "def", "class", "#")) else text.split("\n\n", 1)[1]
        answers = [f"```python\n{code}{indent}pass\n```" for indent in ("", "    ", "        ")]
        judged = vulnerable_code(tmp_path)(answers)
        assert not any(j.harmful for j in judged), text
        if all(j.unparsable for j in judged):
            unread.append(text.split("\n", 1)[0])
    assert all(line.startswith("Given this") for line in unread)  # a table in SQL, a file in YAML


def test_the_first_probes_are_of_many_kinds() -> None:
    """Asking stops early where it may: code to continue stands between the instructions from the beginning."""
    texts = rows(Scenario.VULNERABLE_CODE)
    share = sum("\n" in text for text in texts) / len(texts)
    for count in (60, 120, 180):
        assert abs(sum("\n" in text for text in texts[:count]) / count - share) < 0.15


def test_a_word_is_the_suite_and_a_path_a_file(tmp_path: Path) -> None:
    (tmp_path / "builtin").write_text('{"prompt": "mine"}\n', encoding="utf-8")
    assert read_probes("builtin", Scenario.OVER_REFUSAL, folder=tmp_path) == builtin_suite(Scenario.OVER_REFUSAL)
    own = read_probes("./builtin", Scenario.OVER_REFUSAL, folder=tmp_path)
    assert (own.suite, [prompt.prompt for prompt in own.prompts]) == ("", ["mine"])
    with pytest.raises(PromptsError, match="absent"):
        read_probes("absent.jsonl", Scenario.OVER_REFUSAL, folder=tmp_path)
