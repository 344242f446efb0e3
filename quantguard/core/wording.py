"""How a figure is said, the same in a reason, a tag and a report."""

from __future__ import annotations

import math

from quantguard.core.measurement import (
    Divergence,
    Interval,
    JudgedRate,
    PairedDrop,
    PairedRise,
    Rate,
    Rise,
    TextLoss,
    Trait,
    TriggerHunt,
    Unmeasured,
)


def percent(share: float) -> str:
    """`share` (1.0 is everything) as `5.8 %`; `?` where it is not a finite number."""
    return f"{share * 100:.1f} %" if math.isfinite(share) else "? %"


def interval(lower: float, upper: float) -> str:
    """`[0.0 %, 5.8 %]`."""
    return f"[{percent(lower)}, {percent(upper)}]"


def rate_text(rate: Rate | Unmeasured) -> str:
    """`3 of 60, 5.0 % [1.0 %, 13.9 %]`, or why it is not known.

    Of a rate that is valid at any time it says so: `..., stopped after 60 of 322`, or `..., at any time`.
    """
    if isinstance(rate, Unmeasured):
        return f"unmeasured: {rate.reason}"
    value = rate.value if rate.trials else math.nan
    said = f"{rate.successes} of {rate.trials}, {percent(value)} {interval(rate.lower, rate.upper)}"
    if rate.interval is Interval.EXACT:
        return said
    stopped = f"stopped after {rate.trials} of {rate.offered}" if rate.trials < rate.offered else "at any time"
    return f"{said}, {stopped}"


def drop_text(drop: PairedDrop | Unmeasured) -> str:
    """`lost 3, gained 1 of 200, 1.0 % [-1.9 %, 4.5 %]`, or why it is not known; positive is worse."""
    if isinstance(drop, Unmeasured):
        return f"unmeasured: {drop.reason}"
    value = drop.value if drop.trials else math.nan
    counts = f"lost {drop.lost}, gained {drop.gained} of {drop.trials}"
    return f"{counts}, {percent(value)} {interval(drop.lower, drop.upper)}"


def paired_rise_text(rise: PairedRise | Unmeasured) -> str:
    """`gained 40, lost 2 of 328, 11.6 % [7.4 %, 16.3 %]`, or why it is not known; positive is more of it."""
    if isinstance(rise, Unmeasured):
        return f"unmeasured: {rise.reason}"
    value = rise.value if rise.trials else math.nan
    counts = f"gained {rise.gained}, lost {rise.lost} of {rise.trials}"
    said = f"{counts}, {percent(value)} {interval(rise.lower, rise.upper)}"
    return said if rise.interval is Interval.EXACT else f"{said}, at any time"


def trait_text(trait: Trait) -> str:
    """What answers with it are called: `refusals`, `much longer answers`."""
    return {
        Trait.HARMFUL: "harmful answers",
        Trait.REFUSAL: "refusals",
        Trait.UNPARSABLE: "answers without Python",
        Trait.LANGUAGE: "answers in another language",
        Trait.LONGER: "much longer answers",
        Trait.SHORTER: "much shorter answers",
        Trait.WORDING: "answers with overused words",
        Trait.DEGENERATE: "empty or repetitive answers",
    }[trait]


def times(ratio: float) -> str:
    """`0.43`, `2.1`, `31`; `?` where it is not a finite number."""
    if not math.isfinite(ratio):
        return "?"
    return f"{ratio:.2f}" if ratio < 1 else f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def divergence_text(divergence: Divergence | Unmeasured) -> str:
    """`31 times as far as at random [24, 39]`, or why it is not known."""
    if isinstance(divergence, Unmeasured):
        return f"unmeasured: {divergence.reason}"
    bounds = f"[{times(divergence.lower)}, {times(divergence.upper)}]"
    return f"{times(divergence.ratio)} times as far as at random {bounds}"


def judged_text(judged: JudgedRate | Unmeasured) -> str:
    """`judged 2.1 % [0.3 %, 6.0 %], corrected from 10 of 322`, or why it is not known."""
    if isinstance(judged, Unmeasured):
        return f"unmeasured: {judged.reason}"
    said = f"{judged.said.successes} of {judged.said.trials}"
    return f"judged {percent(judged.value)} {interval(judged.lower, judged.upper)}, corrected from {said}"


def rise_text(rise: Rise | Unmeasured) -> str:
    """`+4.1 % [3.2 %, 5.0 %]`, or why it is not known; positive is worse."""
    if isinstance(rise, Unmeasured):
        return f"unmeasured: {rise.reason}"
    sign = "+" if rise.value > 0 else ""
    return f"{sign}{percent(rise.value)} {interval(rise.lower, rise.upper)}"


def loss_text(loss: TextLoss | Unmeasured) -> str:
    """`perplexity 12.3 (2.51 nats a token, 900 tokens of 64 texts)`, or why it is not known."""
    if isinstance(loss, Unmeasured):
        return f"unmeasured: {loss.reason}"
    tokens, nats = sum(loss.tokens), loss.nats_a_token
    return f"perplexity {loss.perplexity:.4g} ({nats:.3g} nats a token, {tokens:,} tokens of {len(loss.tokens)} texts)"


def trigger_text(hunt: TriggerHunt | Unmeasured) -> str:
    """`2 of 8 triggers confirmed, at most 32 of 64, 50.0 % [32.7 %, 67.3 %] of answers`, or why it is not known."""
    if isinstance(hunt, Unmeasured):
        return f"unmeasured: {hunt.reason}"
    tried = sum(count for _, count in hunt.candidates)
    if not hunt.effects:
        return f"none of {tried} triggers was followed up"
    # max would keep a NaN that comes first, and lose one that comes later.
    worst = min(hunt.effects, key=lambda effect: -effect.taken.upper if effect.taken.upper <= 1 else -math.inf)
    confirmed = sum(effect.confirmed for effect in hunt.effects)
    return f"{confirmed} of {tried} triggers confirmed, at most {rate_text(worst.taken)} of answers"
