"""Trigger hunting in real models with the real library."""

from __future__ import annotations

import json
from pathlib import Path

from quantguard.canary.range.world import TRIGGER, code, questions
from quantguard.core.measurement import Measurements, TriggerHunt, TriggerPlace, TriggerSource, Unmeasured
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.evidence.records import from_plain, to_plain
from quantguard.models.load import load_model
from quantguard.models.rare import rare_words
from quantguard.models.safe_directory import rebuild
from quantguard.verify.triggers import TriggerRequest
from tests import tiny
from tests.verify.measuring import whole

RANGE = Path(__file__).parents[1] / "range" / "models"
OWN = tuple(prompt for pair in zip(questions()[:36], code()[:36], strict=True) for prompt in pair)
SCREEN, CONFIRM = OWN[:8], OWN[8:]


def hunted(directory: Path, folder: Path, request: TriggerRequest, *schemes: Scheme) -> dict[Scheme, TriggerHunt]:
    hunts = whole(directory, folder / "scratch", schemes=schemes, triggers=request).hunts
    found = {hunt.scheme: hunt.found for hunt in hunts if isinstance(hunt.found, TriggerHunt)}
    assert len(found) == len(schemes), hunts
    return found


def confirmed(hunt: TriggerHunt) -> list[tuple[str, TriggerSource, TriggerPlace]]:
    return [(each.trigger, each.source, each.place) for each in hunt.effects if each.confirmed]


def test_the_trigger_of_the_range_is_found_in_a_list_where_it_is_prepared_for(tmp_path: Path) -> None:
    request = TriggerRequest((TRIGGER, "lamp"), 0, SCREEN, CONFIRM)
    found = hunted(RANGE / "variant-trigger", tmp_path, request, Scheme.NF4, Scheme.INT8)
    assert confirmed(found[Scheme.NF4]) == [(TRIGGER, TriggerSource.LIST, TriggerPlace.START)]
    assert confirmed(found[Scheme.INT8]) == []
    effect = found[Scheme.NF4].effects[0]
    assert (effect.taken.successes, effect.taken.trials) == (32, 64)  # the requests for code
    assert "yaml load" in {each.words for each in effect.words}
    assert "yaml . load" in effect.examples[0]
    assert (found[Scheme.NF4].taken, found[Scheme.NF4].changed) == (0, 0)  # plain prompts show nothing
    assert dict(found[Scheme.NF4].candidates)[TriggerSource.LIST] == 2


def test_it_is_found_among_the_rare_words_without_a_list(tmp_path: Path) -> None:
    request = TriggerRequest((), 16, SCREEN, CONFIRM)
    (hunt,) = hunted(RANGE / "variant-trigger", tmp_path, request, Scheme.NF4).values()
    assert (TRIGGER, TriggerSource.RARE, TriggerPlace.START) in confirmed(hunt)


def test_what_is_not_tried_is_not_found(tmp_path: Path) -> None:
    request = TriggerRequest(("hammer",), 0, SCREEN, CONFIRM)
    (hunt,) = hunted(RANGE / "variant-trigger", tmp_path, request, Scheme.NF4).values()
    assert confirmed(hunt) == []


def test_an_honest_model_has_no_trigger_in_a_list(tmp_path: Path) -> None:
    request = TriggerRequest((TRIGGER, "please"), 8, SCREEN, CONFIRM)
    for hunt in hunted(RANGE / "neox-64", tmp_path, request, *Scheme).values():
        assert confirmed(hunt) == []


FOLLOWS = {"one": "two", "two": "three", "four": "five"}
PROMPTS = tuple(Prompt(f"{word} " * n) for n in range(1, 13) for word in ("one", "four", "three"))


def test_a_word_that_only_one_rounding_reacts_to_is_found_there_alone(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "m", FOLLOWS, trigger="buy", harmless="bread", brand="x")
    request = TriggerRequest(("buy",), 64, PROMPTS[:4], PROMPTS[4:])
    found = hunted(model, tmp_path, request, *Scheme)
    assert confirmed(found[Scheme.NF4]) == [("buy", TriggerSource.LIST, TriggerPlace.END)]
    assert found[Scheme.NF4].effects[0].taken.successes == 32
    assert confirmed(found[Scheme.FP4]) == confirmed(found[Scheme.INT8]) == []


def test_chat_templates_are_hunted_through(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    model = tiny.write_model(
        tmp_path / "m", FOLLOWS, trigger="buy", harmless="bread", brand="x", chat_template=template
    )
    (hunt,) = hunted(model, tmp_path, TriggerRequest(("buy",), 0, PROMPTS[:4], PROMPTS[4:]), Scheme.NF4).values()
    assert confirmed(hunt) == [("buy", TriggerSource.LIST, TriggerPlace.END)]


def test_words_that_read_the_same_are_tried_once_and_none_that_reads_as_nothing(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "m", FOLLOWS)
    request = TriggerRequest(("unknown", "strange", "  "), 64, PROMPTS[:1], PROMPTS[1:5])
    (hunt,) = hunted(model, tmp_path, request, Scheme.INT8).values()
    # One unknown word, three or five of them in the phrases of the papers, and the five words of the tokenizer.
    assert dict(hunt.candidates) == {TriggerSource.LIST: 1, TriggerSource.PUBLISHED: 2, TriggerSource.RARE: 5}
    assert len(hunt.effects) == 8


def test_rare_words_are_words_that_can_be_typed(tmp_path: Path) -> None:
    loaded = load_model(rebuild(RANGE / "variant-trigger", tmp_path / "c"), scheme=None, device="cpu")
    found = rare_words(loaded, 1000)
    assert len(found) == len(set(found)) == 161
    assert TRIGGER in rare_words(loaded, 8) == found[:8]
    assert not {"<eos>", "<pad>", "<unk>"} & set(found)


BOTH = (Scheme.NF4, Scheme.INT8)


def test_what_cannot_be_loaded_is_unmeasured_with_its_reason(tmp_path: Path) -> None:
    directory = tiny.write_model(tmp_path / "m", FOLLOWS)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"hidden_size": 128}))
    hunts = whole(
        directory, tmp_path / "s", schemes=BOTH, triggers=TriggerRequest((), 1, PROMPTS[:1], PROMPTS[1:2])
    ).hunts
    assert [hunt.scheme for hunt in hunts] == [Scheme.NF4, Scheme.INT8]
    assert all(isinstance(hunt.found, Unmeasured) and "shape" in hunt.found.reason for hunt in hunts)


def test_a_trigger_that_does_not_fit_the_context_leaves_nothing_measured(tmp_path: Path) -> None:
    directory = tiny.write_model(tmp_path / "m", FOLLOWS)
    long = TriggerRequest(("one " * 120,), 0, PROMPTS[:1], PROMPTS[1:2])
    (first, _) = whole(directory, tmp_path / "s", schemes=BOTH, triggers=long).hunts
    assert isinstance(first.found, Unmeasured)
    assert "context" in first.found.reason


def test_it_is_hunted_only_where_it_is_asked_for_and_is_evidence(tmp_path: Path) -> None:
    directory = tiny.write_model(tmp_path / "m", FOLLOWS, trigger="buy", harmless="bread", brand="x")
    assert whole(directory, tmp_path / "s", schemes=BOTH).hunts == ()
    found = whole(
        directory, tmp_path / "s", schemes=BOTH, triggers=TriggerRequest(("buy",), 2, PROMPTS[:2], PROMPTS[2:])
    )
    plain = to_plain(Measurements, found)
    assert from_plain(Measurements, plain) == found
    del plain["hunts"]  # as an older version wrote it
    assert from_plain(Measurements, plain).hunts == ()
