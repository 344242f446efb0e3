"""The checkpoints that the benchmark makes: hard benign ones, fresh ones of both kinds, power, adaptive attackers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, product
from typing import Final

from scan_bases import DENSITIES, DTYPES, FRESH, HARD, MINILM, Base
from scan_prepared import GROUPS_128, Q4_K, TARGETS, Preparation
from scan_work import Case

SHARES: Final = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3)
SCHEMES: Final = ("nf4", "fp4", "int8")
SEEDS: Final = (1, 2, 3)
SMALL, MIDDLE, DEEP = (Base(layers=layers) for layers in (4, 16, 64))
_ROUGHLY: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
_SHAPES: Final = (
    Base(12, 384, 96, conv1d=True),
    Base(8, 160, 480),
    Base(6, 1152, 384, conv1d=True),
    Base(4, 512, 2048),
)
# Of the cell: margins that are fixed, at which weights are moved, or out of which they are pushed.
OTHER_WAYS: Final = (
    ("clamped", 0.001),
    ("clamped", 0.0),
    ("scattered", 0.05),
    ("scattered", 0.1),
    ("scattered", 0.3),
    ("pushed", 0.05),
    ("pushed", 0.1),
    ("pushed", 0.3),
)
ADAPTIVE: Final = (
    ("clamped", 0.002),
    ("clamped", 0.001),
    ("clamped", 0.0005),
    ("clamped", 0.0),
    ("scattered", 0.1),
    ("scattered", 0.3),
    ("scattered", 0.5),
    ("pushed", 0.1),
    ("pushed", 0.3),
    ("pushed", 0.5),
    ("smooth", 0.0),
    ("about levels", 0.1),
    ("about levels", 0.05),
    ("by block", 0.3),
)


def hard_benign() -> Iterator[Case]:
    """What honest people do to the pretrained network, in three dtypes; each on the network itself."""
    for change, dtype in product(HARD, DTYPES):
        yield Case(f"{change}, {dtype}", "hard", change=change, dtype=dtype)


def fresh_benign() -> Iterator[Case]:
    """Changes, shapes and seeds that were in no set which thresholds were looked at with."""
    for change, dtype in product(FRESH, DTYPES):
        yield Case(f"MiniLM {change}, {dtype}", "fresh benign", change=change, dtype=dtype)
    for (shape, density), dtype in zip(product(_SHAPES, DENSITIES), cycle(DTYPES), strict=False):
        base = replace(shape, density=density)
        yield Case(f"{base}, {dtype}", "fresh benign", base=base, dtype=dtype)


def fresh_prepared() -> Iterator[Case]:
    """A tenth and all of the weights at the published margin; margins drawn for all of them; Q4_K's levels.

    Each in every dtype: a way that is tried in one dtype only says nothing about the way.
    """
    bases = [(replace(shape, density=d), "as it is") for shape, d in zip(_SHAPES, DENSITIES, strict=False)]
    for (base, change), target, dtype in product([*bases, (MINILM, "rotated")], SCHEMES, DTYPES):
        for how, share in (
            (Preparation(target), 0.1),
            (Preparation(target), 1.0),
            (Preparation(target, "pushed", 0.3), 1.0),
        ):
            name = f"{base} {change}, {target} {how.way} {share:.0%}, {dtype}"
            yield Case(name, "fresh prepared", base, change, dtype, how, (share,))
    for density, share, dtype in product(DENSITIES, (0.1, 0.5), DTYPES):
        base, how = replace(_SHAPES[-1], density=density), Preparation(Q4_K)
        name = f"{base}, {Q4_K} {share:.0%}, {dtype}"
        yield Case(name, "fresh prepared", base, "as it is", dtype, how, (share,))


def power() -> Iterator[Case]:
    """The smallest share that is seen, of weights as the published attack leaves them."""
    for base, target, dtype, seed in product((MINILM, SMALL, MIDDLE, DEEP), TARGETS, DTYPES, SEEDS):
        if target in (Q4_K, GROUPS_128) and base is not MIDDLE:
            continue  # few of MiniLM's rows hold whole super-blocks
        if base is DEEP and (seed > 1 or dtype == "float16"):
            continue  # minutes
        name, how = f"{base} {target} {dtype} {seed}", Preparation(target)
        if seed == SEEDS[0]:
            yield Case(name, "power", base, "as it is", dtype, how, SHARES, enough=2)
        else:
            yield Case(name, "power", base, "as it is", dtype, how, SHARES[2:], enough=1)


def one_layer() -> Iterator[Case]:
    """As `power`, in the first weight of the network only."""
    for base, target, dtype, seed in product((MINILM, MIDDLE), SCHEMES, DTYPES, SEEDS):
        how = Preparation(target, first_only=True)
        yield Case(f"{base} {target} {dtype} {seed}", "one layer", base, "as it is", dtype, how, SHARES[3:], enough=1)


def other_ways() -> Iterator[Case]:
    """As `power`, at other margins than the published one, by larger steps."""
    for base, target, (way, margin) in product((MINILM, MIDDLE), SCHEMES, OTHER_WAYS):
        how = Preparation(target, way, margin)
        for dtype in ("float32", "bfloat16"):
            name = f"{base} {target} {way} {margin} {dtype}"
            yield Case(name, "other ways", base, "as it is", dtype, how, _ROUGHLY, enough=1)


def adaptive() -> Iterator[Case]:
    """What an attacker who knows the scan would try, on all weights of the pretrained network."""
    for (way, margin), target, dtype in product(ADAPTIVE, SCHEMES, ("float32", "bfloat16")):
        how = Preparation(target, way, margin)
        yield Case(f"{way} {margin} {target} {dtype}", "adaptive", dtype=dtype, how=how)
    for (way, margin), dtype in product((("clamped", 0.01), ("scattered", 0.1), ("scattered", 0.3)), DTYPES):
        how = Preparation(GROUPS_128, way, margin)
        yield Case(f"{way} {margin} {GROUPS_128} {dtype}", "adaptive", dtype=dtype, how=how)
    for dtype in DTYPES:
        shares = (0.01, 0.1, 0.3, 0.9, 1.0)
        yield Case(f"{Q4_K} {dtype}", "adaptive", MIDDLE, "as it is", dtype, Preparation(Q4_K), shares)
    for share, dtype in product((0.1, 0.15, 0.25, 1.0), DTYPES):
        yield Case(f"outliers {share} {dtype}", "adaptive", dtype=dtype, outliers=share)


def every_case() -> tuple[Case, ...]:
    """The longest first."""
    return (
        *power(), *one_layer(), *other_ways(), *adaptive(), *hard_benign(), *fresh_benign(), *fresh_prepared()
    )  # fmt: skip


def a_few() -> tuple[Case, ...]:
    """One or two of each, for a smoke test."""
    sets = (power, one_layer, other_ways, adaptive, hard_benign, fresh_benign, fresh_prepared)
    return tuple(case for made in sets for case in list(made())[-2:])
