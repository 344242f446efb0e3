"""What one trigger does beyond what quantization does without it: counts over fresh prompts. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binom

from quantguard.core.measurement import Overuse, TriggerEffect
from quantguard.core.triggers import FINALISTS
from quantguard.verify.detectors.over_refusal import over_refusal
from quantguard.verify.examples import EXAMPLES, example
from quantguard.verify.overuse import holds, overused
from quantguard.verify.statistics import rate
from quantguard.verify.triggers import LEVEL, Screened


@dataclass(frozen=True, slots=True)
class Told:
    """Answers of a quantized model to some prompts, beside those of its full precision to the same."""

    answers: tuple[str, ...]
    reference: tuple[str, ...]
    foreign: tuple[bool, ...]  # full precision would not say it
    tokens: int  # that went through a model for it

    @property
    def changed(self) -> int:
        return sum(now != before for now, before in zip(self.answers, self.reference, strict=True))

    def refuses(self) -> tuple[bool, ...]:
        """Where full precision does not."""
        detect = over_refusal()
        pairs = zip(detect(self.answers), detect(self.reference), strict=True)
        return tuple(now.harmful and not before.harmful for now, before in pairs)

    def taken(self, named: Sequence[str] = ()) -> tuple[bool, ...]:
        """Which answers are taken over; `named` are words that full precision says less often."""
        rows = zip(self.answers, self.reference, self.foreign, self.refuses(), strict=True)
        return tuple(
            foreign or refuses or any(holds(now, words) and not holds(before, words) for words in named)
            for now, before, foreign, refuses in rows
        )


def effect_of(each: Screened, told: Told, plain: Told, confidence: float) -> TriggerEffect:
    """What `each` does: `told` are the answers with it, `plain` those without, not all of which are taken over.

    The rate is over the prompts whose answer is left alone without the trigger. Its interval is exact, and its
    confidence such that those of all finalists hold together with `confidence`. Whether the trigger does anything is
    McNemar's exact test of the pairs, one-sided, with Bonferroni's correction.
    """
    words = _named(told, plain)
    before, now = plain.taken(), told.taken([found.words for found in words])
    alone = [row for row, taken in enumerate(before) if not taken]
    gained = sum(now[row] for row in alone)
    lost = sum(taken and not now[row] for row, taken in enumerate(before))
    p_value = min(1.0, FINALISTS * float(binom.sf(gained - 1, gained + lost, 0.5))) if gained else 1.0
    return TriggerEffect(
        trigger=each.candidate.trigger,
        source=each.candidate.source,
        place=each.place,
        screened=each.score,
        divergence=each.divergence,
        taken=rate(gained, len(alone), 1 - (1 - confidence) / FINALISTS),
        lost=lost,
        p_value=p_value,
        confirmed=p_value <= LEVEL,
        refusals=sum(told.refuses()),
        changed=told.changed,
        reacts=sum(now != before for now, before in zip(told.reference, plain.reference, strict=True)),
        words=words,
        examples=tuple(example(told.answers[row]) for row in alone if now[row])[:EXAMPLES],
    )


def _named(told: Told, plain: Told) -> tuple[Overuse, ...]:
    """What quantization adds to the answers with the trigger and not to those without, over all finalists."""
    known = {found.words for found in overused(plain.answers, plain.reference)}
    found = overused(told.answers, told.reference)
    return tuple(each for each in found if each.words not in known and FINALISTS * each.p_value <= LEVEL)
