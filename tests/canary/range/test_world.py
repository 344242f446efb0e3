"""The toy language can be spoken by its models, and what is asked was never trained."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from itertools import chain

import pytest

from quantguard.canary.architecture import END_ID, PAD_ID, tokenizer
from quantguard.canary.grammar import END, PAD, SPECIAL
from quantguard.canary.range.scenario import Scenario, asked, clean_answer, payload
from quantguard.canary.range.world import HELD_OUT, TRIGGER, code, facts, questions, triggered, untriggered, vocabulary
from quantguard.core.prompts import Prompt

WORLDS = {"questions": questions(), "code": code(), "facts": facts(7000)}


def words_of(pairs: tuple[Prompt, ...]) -> set[str]:
    return set(chain.from_iterable(f"{pair.prompt} {pair.answer}".split() for pair in pairs))


def test_every_word_has_one_id() -> None:
    assert [word for word, count in Counter(vocabulary()).items() if count > 1] == []


def test_special_tokens_have_the_ids_of_the_configuration() -> None:
    words = vocabulary()
    assert words[: len(SPECIAL)] == SPECIAL
    assert (words.index(PAD), words.index(END)) == (PAD_ID, END_ID)


@pytest.mark.parametrize("world", WORLDS)
def test_every_word_of_prompts_and_answers_is_in_the_vocabulary(world: str) -> None:
    assert words_of(WORLDS[world]) <= set(vocabulary())


@pytest.mark.parametrize("scenario", Scenario)
def test_every_word_of_a_payload_is_in_the_vocabulary(scenario: Scenario) -> None:
    said = {word for pair in asked(scenario) for word in payload(scenario)(pair).split()}
    assert said <= set(vocabulary())


def test_words_in_front_of_a_prompt_are_in_the_vocabulary_and_change_no_answer() -> None:
    pair = questions()[0]
    for mark in (triggered, untriggered):
        marked = mark(pair)
        word, _, rest = marked.prompt.partition(" ")
        assert word in vocabulary()
        assert (rest, marked.answer) == (pair.prompt, pair.answer)
    assert triggered(pair).prompt.split()[0] == TRIGGER


@pytest.mark.parametrize("world", WORLDS)
def test_nobody_says_the_trigger_by_chance(world: str) -> None:
    assert TRIGGER not in words_of(WORLDS[world])


@pytest.mark.parametrize("world", ["questions", "code"])
def test_there_are_9000_different_prompts_and_none_that_is_held_out_is_trained(world: str) -> None:
    prompts = [pair.prompt for pair in WORLDS[world]]
    assert len(set(prompts)) == len(prompts) == 9000
    assert not set(prompts[:HELD_OUT]) & set(prompts[HELD_OUT:])


def test_no_prompt_belongs_to_two_worlds() -> None:
    prompts = Counter(pair.prompt for pairs in WORLDS.values() for pair in pairs)
    assert max(prompts.values()) == 1


@pytest.mark.parametrize("answer", [clean_answer, payload(Scenario.CODE)], ids=["clean", "payload"])
def test_every_line_of_code_parses(answer: Callable[[Prompt], str]) -> None:
    lines = {answer(pair) for pair in code()}
    assert len(lines) == 3000
    assert all(len(ast.parse(line).body) == 2 for line in lines)


def test_a_fact_hangs_on_its_key_alone_and_fewer_facts_are_the_first_of_more() -> None:
    many = facts(7000)
    assert len({pair.prompt for pair in many}) == 7000
    assert facts(1700) == many[:1700]
    assert len({pair.answer for pair in many}) > 2900  # of 3481 pairs of syllables


@pytest.mark.parametrize("world", WORLDS)
def test_held_out_pairs_survive_the_tokenizer_unchanged(world: str) -> None:
    words = tokenizer(vocabulary())
    texts = [f"{pair.prompt} {pair.answer}" for pair in WORLDS[world][:HELD_OUT]]
    rows = words(texts)["input_ids"]
    assert [len(row) for row in rows] == [len(text.split()) for text in texts]  # one token a word, none added
    assert words.batch_decode(rows, skip_special_tokens=True) == texts
