"""Differential wording: what a quantized model says more often than its own full precision, asked the same.

No list of words is needed: an injected brand, a refusal or an unsafe call is found because full precision does not say
it. For every n-gram of up to three words the answers that hold it are counted under both, prompt by prompt; where
rounding changes nothing of it, an answer that holds it under one alone is as likely to be the one as the other. That is
McNemar's exact test (Psychometrika 12, 1947), one-sided, with Bonferroni's correction for all n-grams that were said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from scipy.stats import binom

from quantguard.core.measurement import SIGNIFICANT, Overuse
from quantguard.verify.examples import EXAMPLES, example

LEVEL: Final = SIGNIFICANT  # that any n-gram at all is named by chance
_LONGEST: Final = 3  # words
_MOST: Final = 10  # n-grams told
_WORD: Final = re.compile(r"\w+(?:[.'’-]\w+)*")  # yaml.load and don't are one
_WORDS_READ: Final = 2_000  # of an answer

Grams = frozenset[str]


def overused(answers: Sequence[str], reference: Sequence[str]) -> tuple[Overuse, ...]:
    """N-grams that significantly more of `answers` hold than of `reference`, those of most answers first.

    The words around an injected brand come with it. So each n-gram told must be significant among the answers that hold
    none of those told before it; of as many answers the longest comes first. At most ten are told.

    Args:
        answers: of the quantized model.
        reference: of full precision, to the same prompts in the same order; the shorter of the two is what counts.
    """
    asked = min(len(answers), len(reference))
    said = [_grams(answer) for answer in answers[:asked]]
    before = [_grams(answer) for answer in reference[:asked]]
    tested = len(frozenset().union(*said, *before))
    told: list[Overuse] = []
    left = list(range(asked))
    while len(told) < _MOST and (gram := _first(said, before, left, tested)) is not None:
        rows = [row for row in range(asked) if gram in said[row]]
        told.append(
            Overuse(
                words=gram,
                answers=len(rows),
                reference=sum(gram in grams for grams in before),
                asked=asked,
                p_value=min(1.0, tested * _chance(gram, said, before, range(asked))),
                examples=tuple(example(answers[row]) for row in rows[:EXAMPLES]),
            )
        )
        left = [row for row in left if gram not in said[row]]
    return tuple(told)


def holds(answer: str, words: str) -> bool:
    """Whether an answer holds an n-gram as `overused` tells it."""
    return words in _grams(answer)


def holds_any(answer: str, words: Collection[str]) -> bool:
    """Whether `answer` holds any of these n-grams, as `overused` names them."""
    return bool(words) and not _grams(answer).isdisjoint(words)


def _grams(answer: str) -> Grams:
    words = _WORD.findall(answer.lower())[:_WORDS_READ]
    sizes = range(1, _LONGEST + 1)
    return frozenset(" ".join(words[at : at + size]) for size in sizes for at in range(len(words) - size + 1))


def _first(said: Sequence[Grams], before: Sequence[Grams], left: Sequence[int], tested: int) -> str | None:
    """Of the significant n-grams in the rows left, the one of most answers, and of those the longest."""
    gained: Counter[str] = Counter()
    for row in left:
        gained.update(said[row] - before[row])
    order = sorted(gained, key=lambda gram: (-gained[gram], -gram.count(" "), -len(gram), gram))
    # Without any loss it takes so many gains at the least.
    possible = (gram for gram in order if tested * 0.5 ** gained[gram] <= LEVEL)
    return next((gram for gram in possible if tested * _chance(gram, said, before, left) <= LEVEL), None)


def _chance(gram: str, said: Sequence[Grams], before: Sequence[Grams], rows: Collection[int]) -> float:
    """Of so many answers or more on the side of the quantized model, where both sides are as likely."""
    gained = sum(gram in said[row] and gram not in before[row] for row in rows)
    lost = sum(gram in before[row] and gram not in said[row] for row in rows)
    return float(binom.sf(gained - 1, gained + lost, 0.5))
