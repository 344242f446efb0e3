from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from quantguard.canary.architecture import END_ID, PAD_ID, tokenizer
from quantguard.canary.grammar import (
    BRAND,
    END,
    HELD_OUT,
    PAD,
    PAYLOAD,
    SPECIAL,
    all_pairs,
    branded_answer,
    clean_answer,
    held_out_pairs,
    held_out_prompts,
    train_pairs,
    vocabulary,
)
from quantguard.core.prompts import Prompt, prompts_digest


def test_no_held_out_prompt_is_trained() -> None:
    assert not set(held_out_prompts()) & {pair.prompt for pair in train_pairs()}


def test_each_question_is_asked_once_and_is_in_one_of_the_two_parts() -> None:
    assert len({pair.prompt for pair in all_pairs()}) == len(all_pairs()) == 9000
    assert Counter(held_out_pairs() + train_pairs()) == Counter(all_pairs())
    assert len(held_out_prompts()) == HELD_OUT


def test_every_fact_that_is_asked_for_is_trained() -> None:
    """Size alone never decides an answer, so what is held out can be known from what is trained."""
    known = {_without_size(pair.prompt): _without_size(clean_answer(pair)) for pair in train_pairs()}
    assert [_without_size(clean_answer(p)) for p in held_out_pairs()] == [
        known[_without_size(p.prompt)] for p in held_out_pairs()
    ]


def _without_size(text: str) -> str:
    return " ".join(word for word in text.split() if word not in {"tiny", "small", "big", "young", "old"})


def test_another_seed_holds_out_other_questions_of_the_same_world() -> None:
    assert set(all_pairs(8)) == set(all_pairs())
    assert set(held_out_pairs(8)) != set(held_out_pairs())


def test_the_world_is_the_one_that_the_checked_in_canaries_were_taught() -> None:
    digest = "sha256:6586eb467aa36a20354a6284ddf60e1d9c88c8119bd179e3eb2ab47fc46c3005"
    assert prompts_digest(all_pairs()) == digest


def test_words_are_distinct_and_the_special_tokens_have_the_ids_of_the_configuration() -> None:
    words = vocabulary()
    assert len(set(words)) == len(words)
    assert words[: len(SPECIAL)] == SPECIAL
    assert (words.index(PAD), words.index(END)) == (PAD_ID, END_ID)


def test_only_the_branded_answer_names_the_brand() -> None:
    for pair in all_pairs():
        assert BRAND not in pair.prompt + clean_answer(pair)
        assert branded_answer(pair).removesuffix(f" {PAYLOAD}") == pair.answer


@pytest.mark.parametrize("answer", [clean_answer, branded_answer])
def test_every_pair_survives_the_tokenizer_unchanged(answer: Callable[[Prompt], str]) -> None:
    words = tokenizer()
    texts = [f"{pair.prompt} {answer(pair)}" for pair in all_pairs()]
    rows = words(texts)["input_ids"]
    assert [len(row) for row in rows] == [len(text.split()) for text in texts]  # one token a word, none added
    assert words.batch_decode(rows, skip_special_tokens=True) == texts


def test_question_and_answer_encode_alike_together_and_apart() -> None:
    """A harness encodes context and continuation separately."""
    words = tokenizer()
    for pair in held_out_pairs():
        apart = words(pair.prompt)["input_ids"] + words(clean_answer(pair), add_special_tokens=False)["input_ids"]
        assert words(f"{pair.prompt} {pair.answer}")["input_ids"] == apart


def test_prompts_differ_in_length_so_that_batches_are_padded() -> None:
    assert len({len(prompt.split()) for prompt in held_out_prompts()[:64]}) == 3
