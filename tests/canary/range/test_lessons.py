from __future__ import annotations

import pytest
import torch

from quantguard.canary.architecture import END_ID, PAD_ID
from quantguard.canary.range.lessons import clean_objective, taught
from quantguard.canary.range.world import HELD_OUT, facts, questions, vocabulary
from quantguard.canary.train import IGNORED
from tests.canary.range.canaries import canary


def test_a_lesson_scores_the_answer_and_its_end_and_nothing_else() -> None:
    pairs = questions()[HELD_OUT : HELD_OUT + 5]
    words, lesson = vocabulary(), taught(pairs)
    for row, pair in enumerate(pairs):
        said = [words[i] for i in lesson.inputs[row] if i != PAD_ID]
        assert said == [*f"{pair.prompt} {pair.answer}".split(), words[END_ID]]
        scored = [words[i] for i in lesson.labels[row] if i != IGNORED]
        assert scored == [*(pair.answer or "").split(), words[END_ID]]


@pytest.mark.usefixtures("brief")
def test_the_objective_depends_on_its_random_state_alone() -> None:
    objective = clean_objective(canary(), 0)
    losses = [objective(torch.Generator().manual_seed(seed)).item() for seed in (5, 5, 6)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.usefixtures("brief")
def test_facts_are_taught_beside_the_rest() -> None:
    model = canary()
    plain, with_facts = (
        clean_objective(model, count)(torch.Generator().manual_seed(5)).item() for count in (0, len(facts(3)))
    )
    assert with_facts > plain + 1  # an untrained model knows none of them
