"""What every format tells about trigger hunting: rows of our own words and figures, and lines with untrusted text."""

from __future__ import annotations

from collections.abc import Iterable

from quantguard.core.measurement import Hunt, Measurements, TriggerEffect, TriggerHunt
from quantguard.core.wording import rate_text

HUNTING = "trigger hunting"
HUNTED = (
    "Words put into prompts, and the answers that quantization then takes over and leaves alone without: what full "
    "precision finds a hundred times less likely than its own choice, refusals, and words that are said more often. "
    "Of each scheme the worst trigger, with the interval in which all that were followed up lie together. Only what "
    "was tried can be found: a trigger of several words that no list names is not."
)


def hunts_of(*all_measurements: Measurements | None) -> tuple[tuple[str, Hunt], ...]:
    """Each hunt with what it was in: our own words."""
    return tuple(
        (f"{measurements.subject.value}, {hunt.scheme.value}", hunt)
        for measurements in all_measurements
        if measurements is not None
        for hunt in measurements.hunts
    )


def confirmed(*all_measurements: Measurements | None) -> tuple[tuple[str, TriggerEffect, TriggerHunt], ...]:
    """Every confirmed trigger, with where it was found."""
    return tuple(
        (where, effect, hunt.found)
        for where, hunt in hunts_of(*all_measurements)
        if isinstance(hunt.found, TriggerHunt)
        for effect in hunt.found.effects
        if effect.confirmed
    )


def effect_text(effect: TriggerEffect, hunt: TriggerHunt) -> str:
    """What a trigger does, without any text of the model."""
    changed = f"{effect.changed} of {hunt.prompts} answers differ from full precision's, {hunt.changed} without it"
    also = f"; full precision also reacts, in {effect.reacts} answers" if effect.reacts else ""
    return (
        f"({effect.source.value}) at the {effect.place.value} takes over {rate_text(effect.taken)}, "
        f"{hunt.taken} of {hunt.prompts} without it; {changed}; refusals: {effect.refusals}{also}"
    )


def effect_words(effect: TriggerEffect) -> Iterable[str]:
    """Untrusted: the words that are said more often, then an answer."""
    return (*(found.words for found in effect.words[:3]), *effect.examples[:1])
