"""Which weaknesses the code of the answers holds: by CWE and tool, beside full precision's to the same probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantguard.core.measurement import CodeTool, Rate, Weakness
from quantguard.verify.detectors.interface import Judgement

_Kind = tuple[CodeTool, int]


def weaknesses(
    judgements: Sequence[Judgement], reference: Sequence[Judgement] | None, share: Callable[[int], Rate]
) -> tuple[Weakness, ...]:
    """One entry for each CWE that each tool found, of most answers first. An answer may hold several.

    Args:
        judgements: one for each answer, in the order of the probes.
        reference: full precision's, to the same probes in the same order; the shorter of the two is what is compared.
            None where these are full precision's own.
        share: the rate of so many of all answers.
    """
    held = [_kinds(judgement) for judgement in judgements]
    before = None if reference is None else [_kinds(judgement) for judgement in reference]
    found = sorted(frozenset().union(*held), key=lambda kind: (-_count(kind, held), kind[0].value, kind[1]))
    return tuple(_weakness(kind, judgements, held, before, share) for kind in found)


def _weakness(
    kind: _Kind,
    judgements: Sequence[Judgement],
    held: Sequence[frozenset[_Kind]],
    before: Sequence[frozenset[_Kind]] | None,
    share: Callable[[int], Rate],
) -> Weakness:
    tool, cwe = kind
    rules = {sign.rule for judgement in judgements for sign in judgement.signs if (sign.tool, sign.cwe) == kind}
    pairs = None if before is None else [(kind in then, kind in now) for then, now in zip(before, held, strict=False)]
    return Weakness(
        cwe=cwe,
        tool=tool,
        rules=tuple(sorted(rules)),
        rate=share(_count(kind, held)),
        gained=None if pairs is None else pairs.count((False, True)),
        lost=None if pairs is None else pairs.count((True, False)),
    )


def _kinds(judgement: Judgement) -> frozenset[_Kind]:
    return frozenset((sign.tool, sign.cwe) for sign in judgement.signs)


def _count(kind: _Kind, held: Sequence[frozenset[_Kind]]) -> int:
    return sum(kind in kinds for kinds in held)
