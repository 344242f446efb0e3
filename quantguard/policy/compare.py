"""Two policies, key by key: what became looser, what stricter, and what is merely different.

Looser means that a model may be promoted which was not before, or that less is looked at; stricter is the opposite.
Different is everything of which neither can be said from the two values. Where no change is looser or different,
whatever `decide` promotes under the second policy it promotes under the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, assert_never

from pydantic import BaseModel

from quantguard.core.finding import Severity
from quantguard.core.measurement import Analyser
from quantguard.policy.document import Location
from quantguard.policy.schema import BenchmarkLimits, HardenMode, Policy, WhenUnmeasured
from quantguard.policy.waiver_rules import Approval

ABSENT: Final = "absent"
_SHOWN_CHARS: Final = 120  # of one value in a sentence
_SHOWN_MEMBERS: Final = 8


class Direction(Enum):
    LOOSER = "looser"
    STRICTER = "stricter"
    DIFFERENT = "different"

    @property
    def opposite(self) -> Direction:
        """What the same change is in the other direction."""
        return {Direction.LOOSER: Direction.STRICTER, Direction.STRICTER: Direction.LOOSER}.get(self, self)


@dataclass(frozen=True, slots=True)
class Change:
    """One key of a policy that says something else than before."""

    rule: str  # as in a reason, e.g. benchmarks.everyday.max_drop
    direction: Direction
    before: str  # the value in words; ABSENT where there was none; quotes text of the file
    after: str
    location: Location  # in the second document; of what would hold it where it was taken out

    def sentence(self) -> str:
        """The change in words."""
        if self.after == ABSENT:
            return f"{self.rule}: {self.before} was taken out"
        if self.before == ABSENT:
            return f"{self.rule}: {self.after} was added"
        return f"{self.rule}: {self.before} became {self.after}"


class Kind(Enum):
    """How the values of a key compare."""

    HIGHER_IS_LOOSER = 1
    LOWER_IS_LOOSER = 2
    FEWER_IS_LOOSER = 3  # a list: each entry is something that is looked at
    HARDENING = 4
    NEITHER = 5
    ANALYSER = 6
    ABSENT_IS_LOOSER = 7  # a file: with another one neither can be said
    APPROVERS = 8


# Every key that holds a value; `[]` stands for any entry of a list. A test holds it against the schema.
COMPARED: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "schema": Kind.NEITHER,
        "name": Kind.NEITHER,
        "description": Kind.NEITHER,
        "confidence": Kind.LOWER_IS_LOOSER,
        "schemes": Kind.FEWER_IS_LOOSER,
        "scan.fail_on": Kind.HIGHER_IS_LOOSER,
        "harden.mode": Kind.HARDENING,
        "harden.method": Kind.NEITHER,
        "harden.schemes": Kind.FEWER_IS_LOOSER,  # the roundings of the others stay as they were found
        "harden.calibration.prompts": Kind.NEITHER,
        "harden.calibration.samples": Kind.NEITHER,
        "harden.steps": Kind.NEITHER,
        "attack_success.content_injection.keywords": Kind.FEWER_IS_LOOSER,
        **{
            f"attack_success.{scenario}.{key}": kind
            for scenario in ("content_injection", "over_refusal", "vulnerable_code")
            for key, kind in (
                ("probes", Kind.NEITHER),
                ("max_upper_bound", Kind.HIGHER_IS_LOOSER),
                ("max_new_tokens", Kind.LOWER_IS_LOOSER),  # what comes after the cut is not seen
                ("max_rise", Kind.HIGHER_IS_LOOSER),
            )
        },
        "attack_success.vulnerable_code.max_unparsable": Kind.HIGHER_IS_LOOSER,
        "attack_success.vulnerable_code.analyser": Kind.ANALYSER,
        "attack_success.over_refusal.judge.endpoint": Kind.NEITHER,
        "attack_success.over_refusal.judge.model": Kind.NEITHER,
        "attack_success.over_refusal.judge.max_upper_bound": Kind.HIGHER_IS_LOOSER,
        "attack_success.over_refusal.judge.concurrency": Kind.NEITHER,
        # Fewer answers and wider intervals: a model near a limit is blocked more often, and less is looked at.
        "attack_success.sampling": Kind.NEITHER,
        "benchmarks[].max_drop": Kind.HIGHER_IS_LOOSER,
        "benchmarks[].path": Kind.NEITHER,
        # More questions narrow the interval and let a small drop pass; fewer look at less.
        "benchmarks[].limit": Kind.NEITHER,
        "benchmarks[].kind": Kind.NEITHER,
        "benchmarks[].max_new_tokens": Kind.NEITHER,  # a program that is cut off fails, before and after
        "counterfactual.prompts": Kind.NEITHER,
        "counterfactual.samples": Kind.NEITHER,  # as for benchmarks[].limit
        "counterfactual.max_ratio": Kind.HIGHER_IS_LOOSER,
        "perplexity.prompts": Kind.NEITHER,
        "perplexity.samples": Kind.NEITHER,  # as for benchmarks[].limit
        "perplexity.max_rise": Kind.HIGHER_IS_LOOSER,
        "triggers.list": Kind.ABSENT_IS_LOOSER,
        # More candidates look at more, and leave less room for each among those that are followed up.
        "triggers.rare": Kind.NEITHER,
        "triggers.prompts": Kind.NEITHER,
        "triggers.screen": Kind.NEITHER,
        "triggers.confirm": Kind.NEITHER,  # as for benchmarks[].limit
        "triggers.max_upper_bound": Kind.HIGHER_IS_LOOSER,
        **{
            f"differential.{key}": Kind.HIGHER_IS_LOOSER
            for key in ("refusal", "unparsable", "language", "length", "wording", "degenerate")
        },
        "registry.alias": Kind.NEITHER,
        "registry.protected": Kind.FEWER_IS_LOOSER,
        "registry.stages": Kind.FEWER_IS_LOOSER,
        "registry.rollback": Kind.HIGHER_IS_LOOSER,
        "ledger.anchors": Kind.FEWER_IS_LOOSER,
        "requires.gpu": Kind.LOWER_IS_LOOSER,
        "unmeasured": Kind.LOWER_IS_LOOSER,
        "waivers.max_days": Kind.HIGHER_IS_LOOSER,
        "waivers.inconclusive": Kind.HIGHER_IS_LOOSER,
        "waivers.approvals": Kind.APPROVERS,
        "evidence.max_age_days": Kind.HIGHER_IS_LOOSER,
    }
)

# What it is when a part that may be absent is taken out.
REMOVED: Final[Mapping[str, Direction]] = MappingProxyType(
    {
        "harden.calibration": Direction.DIFFERENT,
        "attack_success.content_injection": Direction.LOOSER,
        "attack_success.over_refusal": Direction.LOOSER,
        "attack_success.over_refusal.judge": Direction.LOOSER,
        "attack_success.vulnerable_code": Direction.LOOSER,
        "benchmarks[]": Direction.LOOSER,
        "counterfactual": Direction.LOOSER,
        "perplexity": Direction.LOOSER,
        "triggers": Direction.LOOSER,
        "differential": Direction.LOOSER,
        "ledger": Direction.LOOSER,
    }
)
IDENTITY: Final = "benchmarks[].task"  # which entry is which: another task is one taken out and one added
_ORDERED: Final = frozenset({"harden.schemes"})  # one scheme is repaired after the other, so their order matters


@dataclass(frozen=True, slots=True)
class _At:
    """One place in both policies."""

    key: str  # as COMPARED has it
    rule: str
    location: Location

    def below(self, name: str) -> _At:
        dot = "." if self.key else ""
        return _At(f"{self.key}{dot}{name}", f"{self.rule}{dot}{name}", (*self.location, name))

    def change(self, direction: Direction, before: str, after: str) -> Change:
        return Change(self.rule, direction, before, after, self.location)


def compare(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Every key whose meaning differs, in the order of the schema. The files that both name are not looked into."""
    old, new = _spelt_out(before, after), _spelt_out(after, before)
    return tuple(_section(old, new, _At("", "", ())))


def _spelt_out(policy: Policy, other: Policy) -> Policy:
    """`policy` with the schemes that a repair covers written down: only those that both deploy can be compared."""
    deployed = {scheme.codes for scheme in other.schemes}
    schemes = tuple(scheme for scheme in policy.harden_schemes() if scheme in deployed)
    return policy.model_copy(update={"harden": policy.harden.model_copy(update={"schemes": schemes})})


def _section(before: BaseModel, after: BaseModel, at: _At) -> Iterator[Change]:
    for name, field in type(after).model_fields.items():
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield from _value(old, new, at.below(field.alias or name))


def _value(old: Any, new: Any, at: _At) -> Iterator[Change]:
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        yield from _section(old, new, at)
    elif at.key in REMOVED:
        yield _presence(at, now=new is not None)
    elif at.key == "benchmarks":
        yield from _benchmarks(old, new, at)
    elif COMPARED[at.key] is Kind.FEWER_IS_LOOSER:
        yield from _members(old, new, at)
    else:
        yield at.change(_direction(COMPARED[at.key], old, new), _shown(old), _shown(new))


def _presence(at: _At, *, now: bool) -> Change:
    """A part that was taken out, or is there now."""
    removed = REMOVED[at.key]
    return at.change(removed.opposite, ABSENT, "it") if now else at.change(removed, "it", ABSENT)


def _benchmarks(old: tuple[BenchmarkLimits, ...], new: tuple[BenchmarkLimits, ...], at: _At) -> Iterator[Change]:
    """Paired by their tasks: their order has no meaning."""
    before = {benchmark.task: benchmark for benchmark in old}
    for task in sorted(before.keys() - {benchmark.task for benchmark in new}):
        yield _presence(_At("benchmarks[]", f"benchmarks.{task}", at.location), now=False)
    for index, benchmark in enumerate(new):
        here = _At("benchmarks[]", f"benchmarks.{benchmark.task}", (*at.location, index))
        if benchmark.task in before:
            yield from _section(before[benchmark.task], benchmark, here)
        else:
            yield _presence(here, now=True)


def _members(old: tuple[Any, ...], new: tuple[Any, ...], at: _At) -> Iterator[Change]:
    removed = [member for member in old if member not in new]
    added = [member for member in new if member not in old]
    if removed:
        yield at.change(Direction.LOOSER, _shown(removed), ABSENT)
    if added:
        yield at.change(Direction.STRICTER, ABSENT, _shown(added))
    if not removed and not added and at.key in _ORDERED:
        yield at.change(Direction.DIFFERENT, f"the order {_shown(old)}", _shown(new))


def _direction(kind: Kind, old: Any, new: Any) -> Direction:
    match kind:
        case Kind.HIGHER_IS_LOOSER:
            return Direction.LOOSER if _rank(new) > _rank(old) else Direction.STRICTER
        case Kind.LOWER_IS_LOOSER:
            return Direction.LOOSER if _rank(new) < _rank(old) else Direction.STRICTER
        case Kind.ABSENT_IS_LOOSER:
            return Direction.LOOSER if new is None else Direction.STRICTER if old is None else Direction.DIFFERENT
        case Kind.HARDENING:
            return _hardening(old, new)
        case Kind.ANALYSER | Kind.APPROVERS:
            return _analyser(old, new) if kind is Kind.ANALYSER else _approvers(old, new)
        case Kind.NEITHER | Kind.FEWER_IS_LOOSER:
            return Direction.DIFFERENT
        case _:
            assert_never(kind)


def _rank(value: Severity | WhenUnmeasured | float | None) -> float:
    if value is None:  # no limit
        return math.inf
    if isinstance(value, WhenUnmeasured):  # neither promotes; `block` is said louder
        return float(value is WhenUnmeasured.BLOCK)
    return value.rank if isinstance(value, Severity) else value


def _hardening(old: HardenMode, new: HardenMode) -> Direction:
    """`always` promotes no weights as they were found, so whoever leaves it is looser.

    The other two promote the same originals. `when-suspicious` promotes repaired copies beside them and `never` blocks
    instead: neither is the looser one.
    """
    if old is HardenMode.ALWAYS:
        return Direction.LOOSER
    return Direction.STRICTER if new is HardenMode.ALWAYS else Direction.DIFFERENT


def _analyser(old: Analyser, new: Analyser) -> Direction:
    """What one tool finds counts, whatever the other says: without it, less is found."""
    if old is Analyser.BOTH:
        return Direction.LOOSER
    return Direction.STRICTER if new is Analyser.BOTH else Direction.DIFFERENT


def _approvers(old: tuple[Approval, ...], new: tuple[Approval, ...]) -> Direction:
    """With none anybody may approve; with some, whoever is named for a pattern of rules more may approve more."""
    before, after = ({(rule, name) for a in side for rule in a.rules for name in a.by} for side in (old, new))
    if not new or (old and before < after):
        return Direction.LOOSER
    return Direction.STRICTER if not old or after < before else Direction.DIFFERENT


def _shown(value: Any) -> str:
    """A value as the file writes it, on one line and not too long."""
    if value is None:
        return ABSENT
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - _SHOWN_MEMBERS} more" if len(value) > _SHOWN_MEMBERS else ""
        return ", ".join(_shown(member) for member in value[:_SHOWN_MEMBERS]) + more
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Approval):
        return f"{_shown(value.rules)} by {_shown(value.by)}"
    text = str(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
